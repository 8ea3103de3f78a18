"""Files that are written whole or not at all, and read only if they are files."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


@contextmanager
def replacing(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """A temporary path to write to. Its bytes then take the place of `path` in one step, once on the disk.

    unique: several processes, on several machines, may do so at once; the last one's bytes stay.
    """
    mark = f".{secrets.token_hex(8)}" if unique else ""
    temporary = path.with_name(f"{path.name}{mark}.partial")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> BufferedReader:
    """The file, to be read. Raises OSError, also for a pipe or a device: to read it could take for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")
