"""What happens to an image between its decoding and a batch.

Imports nothing else of this package.
"""
