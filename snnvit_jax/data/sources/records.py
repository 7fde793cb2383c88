"""Records of array_record files by random access."""

import bisect
import itertools
import os


class UnreadableError(Exception):
    """A record that its file does not give away; the message names the file and says why."""


class Records:
    """Records of several files, one after the other, as bytes.

    A single record is asked for as a range, which array_record answers at a tenth of the cost of a
    list of one. Files are opened when first read; a pickle holds their names only.
    """

    def __init__(self, parts):
        """Keeps which records of which files there are.

        Args:
          parts: [(file name, first record, number of records)].
        """
        self._parts = tuple(parts)
        self._ends = tuple(itertools.accumulate(count for _, _, count in self._parts))
        self._readers = {}

    def __reduce__(self):
        return Records, (self._parts,)

    def __len__(self):
        """Number of records."""
        return self._ends[-1] if self._ends else 0

    @property
    def missing(self):
        """Names of the files that are not there, in order."""
        return [name for name, _, _ in self._parts if not os.path.isfile(name)]

    def __getitem__(self, index):
        """Returns the bytes of a record.

        Raises:
          IndexError: past the end.
          UnreadableError: if the file is missing, cut short or damaged there.
        """
        index = range(len(self))[index]
        part = bisect.bisect_right(self._ends, index)
        name, first, count = self._parts[part]
        place = first + index - (self._ends[part] - count)
        try:
            return self._reader(name).read(place, place + 1)[0]
        except (RuntimeError, IndexError, ValueError, OSError) as error:
            raise UnreadableError(f"{name}: {self._reason(name, place, error)}") from error

    def _reason(self, name, place, error):
        """Why a record cannot be read: array_record opens files that are missing or cut short."""
        if not os.path.isfile(name):
            return "there is no such file"
        if isinstance(error, IndexError):
            held = self._reader(name).num_records()
            return f"the file is cut short: it holds {held} records, and not one of number {place}"
        return str(error).splitlines()[0] if str(error) else type(error).__name__

    def _reader(self, name):
        if name not in self._readers:
            # Imported late, because the package is not available for every operating system.
            from array_record.python import array_record_module

            # Without reading ahead, because the next record may lie anywhere. Two threads may both
            # open the file; one of the readers is kept.
            options = "readahead_buffer_size:0"
            reader = array_record_module.ArrayRecordReader(name, options=options)
            return self._readers.setdefault(name, reader)
        return self._readers[name]
