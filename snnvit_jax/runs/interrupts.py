"""Ctrl-C and SIGTERM become a request to stop after the current step."""

import signal
import threading


class StopRequest:
    """Context manager that notes the first SIGINT or SIGTERM; a second SIGINT stops at once.

    Python delivers signals to the main thread only; in any other thread it notes nothing.

    Attributes:
      signal: number of the signal received, or None.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self):
        return self.signal is not None

    def _note(self, number, _frame):
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
