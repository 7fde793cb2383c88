"""Weights from elsewhere: authors' names, PyTorch files, safetensors.

Imports `models`, `time_steps` and `checkpoints`.
"""
