"""What a training says of itself beside its numbers: how long it takes, gradients that explode."""

import collections
import statistics

from snnvit_jax.runs.clock import in_words

UNUSUAL = 100  # times the median of the last lines
_LINES = 50


class Remarks:
    """Remarks on the lines of the log, each made once or when its cause comes again."""

    def __init__(self, config, total_steps):
        """Starts with the first line.

        Args:
          config: of the run.
          total_steps: of the training.
        """
        self._config, self._total_steps, self._lines = config, total_steps, 0
        self._norms = collections.deque(maxlen=_LINES)

    def on(self, step, values):
        """Yields what there is to say of a line of the log.

        Args:
          step: training steps done.
          values: of the line, with "images_per_second" and "gradient_norm".
        """
        self._lines += 1
        steps_left = self._total_steps - step
        if self._lines == 2 and steps_left > 0:  # the first line's time is that of the compilation
            seconds = steps_left * self._config.batch_size / values["images_per_second"]
            yield f"about {in_words(seconds)} of training left, besides evaluations"
        if self._config.optimizer.clip_norm is None:
            yield from self._on_gradient(values["gradient_norm"])

    def _on_gradient(self, norm):
        usual = statistics.median(self._norms) if len(self._norms) >= 5 else norm
        self._norms.append(norm)
        if norm > UNUSUAL * usual > 0:
            yield (
                f"warning: a gradient norm of {norm:.3g}, where {usual:.3g} is usual: the "
                "optimiser's averages keep it for about a thousand steps, in which the weights "
                "that it reached hardly move"
            )
            yield f"hint: --config.optimizer.clip_norm={10 * usual:.2g} limits what one step can do"
