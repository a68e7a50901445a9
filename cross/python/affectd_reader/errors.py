"""What is wrong with a source, in words: the thing, the reason, and what to do."""

from __future__ import annotations

import errno
import os


class SourceError(Exception):
    """The source cannot be used as it is written: a mistake in it, or a package that is missing."""


_COMMON = {
    errno.ENOENT: "does not exist: check the path",
    errno.ENOTDIR: "does not exist: check the path",
    errno.ENOSPC: "its disk is full: free some space",
    errno.EROFS: "cannot be written, because its disk is read-only: use another folder",
    errno.EMFILE: "too many files are open: close some",
}
_FILE = {
    **_COMMON,
    errno.EACCES: "you may not read it: read it as its owner, or with sudo",
    errno.EISDIR: "is a folder: name a file in it",
    errno.EIO: "its disk fails: copy the file to another one",
}
_PORT = {
    **_COMMON,
    errno.ENOENT: "not plugged in: plug it in, or list the ports with ls -l /dev/serial/by-id",
    errno.EACCES: "you may not use it: join its group (sudo usermod -aG dialout USER) and log in again",
    errno.EBUSY: "is in use by another program: stop that program",
    errno.EAGAIN: "is in use by another program: stop that program",
}
_GONE = "is gone: plug it in again"


def of_file(error: OSError) -> str:
    """Why a file cannot be read or written."""
    return _FILE.get(_number(error)) or f"cannot be used, because the system says “{_text(error)}”: use another file"


def of_port(error: OSError) -> str:
    """Why a serial port cannot be used."""
    return _PORT.get(_number(error), _GONE)


def _number(error: BaseException | None) -> int | None:
    """The number of the system's error. Exceptions of pyserial have it only in what caused them."""
    while error is not None:
        number = error.args[0] if error.args else None
        if isinstance(number, int):
            return number
        error = error.__cause__ or error.__context__
    return None


def _text(error: OSError) -> str:
    number = _number(error)
    return os.strerror(number) if number is not None else str(error)
