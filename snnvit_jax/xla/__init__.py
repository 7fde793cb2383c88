"""What compilers are told, and what they say of a program.

The only package that asks which backend computes. Imports nothing else of this package.
"""
