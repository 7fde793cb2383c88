"""What happens to an image between its decoding and a batch.

Imports `common` and `data.decode`.
"""
