"""Who opens a version tells whoever removes versions, through advisory locks on the version's folder.

Only the opening needs it: files that are mapped stay readable after they were removed. On a file system
without such locks nothing is held.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def while_opening(version: Path) -> Iterator[None]:
    """Nobody removes the version meanwhile. One that is gone already is for the caller to notice."""
    try:
        descriptor = os.open(version, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusively(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether one has the folder to oneself; with `wait` waits for it. Raises OSError: it is not there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        except OSError:  # no locks here
            yield True
        else:
            yield True
    finally:
        os.close(descriptor)
