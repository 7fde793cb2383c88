"""Images, recordings, labels: sources (random access), transforms (pure), loader (batches).

Imports nothing else of this package.
"""
