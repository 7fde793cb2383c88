"""Weights from elsewhere: authors' names, PyTorch files, safetensors, fitting them to a model.

Imports `models`, `time_steps` and `checkpoints`.
"""
