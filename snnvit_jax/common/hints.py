"""What usually helps, said in more than one place."""

# What brings layers back that never fire, most often first.
AGAINST_SILENCE = (
    "a layer that does not fire passes nothing on and hardly learns; what usually helps is a lower "
    "optimizer.learning_rate or a longer optimizer.warmup, less of time_step_penalty and "
    "spike_penalty or a later time_step_start, or a wider surrogate "
    "(model.neuron.surrogate=arctan, or a smaller model.neuron.alpha)"
)
