"""What training steps report between two lines of the log: means, throughput, waiting, failures."""

import time

import jax

from snnvit_jax.evaluation import metrics


def in_words(seconds):
    """Returns a length of time as people say it: "40 s", "7 min", "3.2 h".

    Args:
      seconds: >= 0.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class StepClock:
    """What was seen, and how long it took, since the last line of the log."""

    def __init__(self, seconds_before=0.0, damaged_before=0):
        """Starts counting where earlier runs in the same folder ended.

        Args:
          seconds_before: that they took.
          damaged_before: images that they left out.
        """
        self._seconds_before = seconds_before
        self._run_start = time.perf_counter()
        self._damaged = damaged_before
        self.restart()

    @property
    def seconds(self):
        """Seconds of training in all, earlier runs in the same folder included."""
        return self._seconds_before + time.perf_counter() - self._run_start

    def restart(self):
        """Forgets what was seen, for what comes between training steps does not count."""
        self._start, self._waited, self._images, self._metrics = time.perf_counter(), 0.0, 0, []

    def wait_for(self, batches):
        """Takes the next batch; waiting counts only if it leaves the devices without work.

        Args:
          batches: an iterator.
        """
        if len(self._metrics) > 1:  # no more than one step ahead of the devices
            jax.block_until_ready(self._metrics[-2])
        start = time.perf_counter()
        batch = next(batches)
        if not self._metrics or self._metrics[-1]["loss"][0].is_ready():
            self._waited += time.perf_counter() - start
        return batch

    def count(self, seen, batch_size):
        """Adds a training step.

        Args:
          seen: its metrics, on the devices.
          batch_size: its examples, over all processes.
        """
        self._metrics.append(seen)
        self._images += batch_size

    def read(self):
        """Returns what was seen since the last reading; waits for the devices.

        Returns:
          (means over the steps whose numbers were finite, empty if none was; and of the others
          [(how many steps ago, flags of `nonfinite.leaf_flags`)]).
        """
        seen = jax.device_get(self._metrics)
        self._damaged += sum(int(step.pop("damaged_images")[0]) for step in seen)
        flags = [step.pop("not_finite")[0] > 0 for step in seen]
        failed = [(len(seen) - 1 - i, x) for i, x in enumerate(flags) if x.any()]
        finite = [step for step, x in zip(seen, flags, strict=True) if not x.any()]
        values = self._means(finite) if finite else {}
        self.restart()
        return values, failed

    def _means(self, seen):
        sums = metrics.merge(*seen)
        values = metrics.means(sums)
        elapsed = time.perf_counter() - self._start
        return values | {
            "images_per_second": self._images / elapsed,
            "data_wait_fraction": self._waited / elapsed,
            "damaged_images": self._damaged,
            "seconds": self.seconds,
        }
