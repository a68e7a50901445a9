"""Where the reading of a growing file stands."""

from __future__ import annotations

from typing import BinaryIO

# More than an estimate and what is before it: two estimates may differ in nothing but their number and time.
TAIL_BYTES = 2048


class Position:
    """How far a file was read, and the bytes before that place.

    They tell a file that has grown from one that was truncated and written again, even if it is longer than before.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._tail = b""

    def advance(self, block: bytes) -> None:
        self._offset += len(block)
        self._tail = (self._tail + block)[-TAIL_BYTES:]

    def is_in(self, file: BinaryIO) -> bool:
        """Whether the file still has these bytes before this place."""
        place = file.tell()
        file.seek(self._offset - len(self._tail))
        is_same = file.read(len(self._tail)) == self._tail
        file.seek(place)
        return is_same
