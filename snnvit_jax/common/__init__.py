"""What every package may use: durable files, rules for values, variables and parameters.

Imports nothing else of this package.
"""
