"""Frames kept in a folder, so that a recording is read and counted once.

A file's name is a hash of what its content depends on: path, size and time of modification of the
recording, and the settings. Files appear whole or not at all, so that any number of processes can
share a folder; one that was damaged since is made again.
"""

import hashlib
import os
import tempfile
import uuid

import numpy as np
from absl import logging

from snnvit_jax.common.paths import expanded
from snnvit_jax.data.sources.events.npz import read_counts
from snnvit_jax.data.sources.events.recording import DamagedRecording

_FORMAT = 1  # of the files, and of how frames are made


class FrameCache:
    """Frames by random access to a folder."""

    def __init__(self, folder):
        """Makes the folder and checks that it can be written to.

        Args:
          folder: its path.

        Raises:
          ValueError: if it cannot be made or written to.
        """
        self.folder = expanded(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(
                f"data.events.cache={str(folder)!r} cannot be used: {error}"
            ) from error

    def get(self, path, settings, make):
        """Returns frames from the folder, or makes and keeps them.

        Args:
          path: of the recording.
          settings: what the frames depend on besides, printable and the same in every process.
          make: function without arguments that gives the frames [T, H, W, 2].

        Raises:
          DamagedRecording: if the frames cannot be made; nothing is kept then.
          OSError: if they cannot be kept, for example because the disk is full.
        """
        kept = self._place(path, settings)
        if kept.exists():
            try:
                return read_counts(kept)
            except DamagedRecording as error:
                logging.warning("made again: %s", error)
        frames = make()
        kept.parent.mkdir(exist_ok=True)
        _write(kept, frames)
        return frames

    def _place(self, path, settings):
        state = os.stat(path)
        about = (_FORMAT, os.path.abspath(path), state.st_size, state.st_mtime_ns, settings)
        name = hashlib.blake2b(repr(about).encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npz"


def _write(path, frames):
    """Writes an archive under another name first; what fails leaves nothing behind.

    It is not flushed to disk, which would take longer than to make it: checksums tell what a power
    cut leaves of it, and then it is made again.
    """
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(unfinished, "xb") as file:
            np.savez_compressed(file, counts=frames)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
