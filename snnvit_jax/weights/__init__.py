"""Weights from elsewhere: authors' names, PyTorch files, safetensors, fitting them to a model.

The folder `networks` holds those that come with the package, each with its card; `pretrained` reads
them.

Imports `common`, `models` and `time_steps`.
"""
