"""Memory of other processes, as Linux tells it."""

import os
from collections.abc import Iterable
from pathlib import Path

_RESIDENT = 1  # the field of /proc/<pid>/statm, in pages


def resident_bytes(processes: Iterable[int]) -> int:
    """Resident memory of these processes together; one that has ended or cannot be seen counts nothing."""
    pages = 0
    for process in processes:
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[_RESIDENT])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")
