"""A process apart that computes what it is asked for, and is given up if it does not answer."""

import contextlib
import multiprocessing


class WorkerError(Exception):
    """The process ended, or did not answer in time; the message says which."""


class Worker:
    """A process that calls functions; started at the first call, and again after it was lost.

    What a compiler or a driver does to it (a crash, no end) leaves the caller as it is, and what it
    holds on a device is free once it is closed.
    """

    def __init__(self):
        self._process = self._connection = None

    def ask(self, seconds, function, *arguments):
        """Returns function(*arguments), computed by the process.

        Args:
          seconds: after which it is ended.
          function: of a module that the process can import.
          *arguments: that can be pickled, as the result must be.

        Raises:
          WorkerError: if there is no result.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, arguments))
            if self._connection.poll(seconds):
                return self._connection.recv()
            message = f"ended after {seconds:.0f} s without a result"
        except (EOFError, OSError):
            self._process.join(10)
            message = f"its process ended (exit code {self._process.exitcode})"
        self.close()
        raise WorkerError(message)

    def close(self):
        """Ends the process, whatever it does."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self):
        context = multiprocessing.get_context("spawn")  # a device does not survive a fork
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()


def _serve(connection):
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = connection.recv()
            connection.send(function(*arguments))
