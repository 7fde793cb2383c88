"""What every package may use: durable files, rules for values, checks of variables.

Imports nothing else of this package.
"""
