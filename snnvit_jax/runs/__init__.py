"""A run from its configuration to its end: folder, logs, restarts, carrying.

Imports everything else; nothing else imports it.
"""
