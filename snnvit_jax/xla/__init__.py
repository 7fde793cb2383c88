"""What compilers need to be told, and what they say of a program: the only package that asks which
backend computes.

Imports nothing of this package.
"""
