"""Images, recordings, labels: sources (random access), transforms (pure), loader (batches).

Imports `common`.
"""
