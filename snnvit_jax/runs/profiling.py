"""A trace of some training steps: what ran when on the devices, for TensorBoard or Perfetto."""

import jax

SKIPPED = 2  # steps before the trace: the first is compiled, the second settles


class Profile:
    """Traces some training steps of a run, once.

    Attributes:
      folder: where the trace is written.
    """

    def __init__(self, folder, steps):
        """Prepares a trace.

        Args:
          folder: path.
          steps: to trace, >= 0; 0 for no trace.
        """
        self.folder, self._steps, self._seen, self._is_tracing = folder, steps, 0, False

    def before_step(self):
        """Begins the trace, if its steps begin."""
        if self._steps and self._seen == SKIPPED:
            jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True)
            self._is_tracing = True
        self._seen += 1

    def after_step(self, results):
        """Ends the trace, if its steps end; waits for the devices then.

        Args:
          results: arrays of the step.

        Returns:
          Whether the trace was written now.
        """
        if self._is_tracing and self._seen == SKIPPED + self._steps:
            return self.end(results)
        return False

    def end(self, results=()):
        """Ends a trace that goes on, such as that of a training that ends earlier.

        Args:
          results: arrays to wait for.

        Returns:
          Whether a trace was written.
        """
        if not self._is_tracing:
            return False
        jax.block_until_ready(results)
        jax.profiler.stop_trace()
        self._is_tracing = False
        return True
