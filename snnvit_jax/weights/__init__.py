"""Weights from elsewhere: authors' names, PyTorch files, safetensors, fitting them to a model.

Imports `common`, `models` and `time_steps`.
"""
