"""Images and labels: sources (random access), transforms (pure), loader (batches)."""
