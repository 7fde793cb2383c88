"""What spiking transformers are made of, except the neuron.

Imports `neurons`, `time_steps` and `xla`.
"""
