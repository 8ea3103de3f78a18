"""Memory that a process and one it starts both see: large data get from one to the other without a pipe."""

import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any


class SharedBuffer(mmap.mmap):
    """So many zero bytes, which take memory once they are written. Close it when it is not needed any more.

    An argument of `multiprocessing.Process` with the start method `spawn`; it cannot be pickled otherwise.
    """

    _descriptor = -1

    @classmethod
    def of_size(cls, size: int) -> "SharedBuffer":
        """Raises OSError."""
        descriptor = _anonymous_file(size)
        try:
            return cls._over(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def _over(cls, descriptor: int, size: int) -> "SharedBuffer":
        buffer = cls(descriptor, size)
        buffer._descriptor = descriptor
        return buffer

    def close(self) -> None:
        if self._descriptor < 0:
            return
        with suppress(BufferError):  # another thread is reading: the memory goes when that is done
            super().close()
        os.close(self._descriptor)
        self._descriptor = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (DupFd(self._descriptor), len(self))


def _attach(descriptor: Any, size: int) -> SharedBuffer:
    return SharedBuffer._over(descriptor.detach(), size)


def _anonymous_file(size: int) -> int:
    if not hasattr(os, "memfd_create"):  # not Linux
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("paellera", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, size)
    # Whoever has taken over the other process could cut it short, and then reading it would kill this one.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor
