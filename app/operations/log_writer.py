"""Lines are written by a thread of their own, so that nobody waits for who reads the log.

A pipe that is not read any more, a terminal that is held, or a slow disk blocks whoever writes to it, and in
the service that would be the event loop.
"""

import os
import threading
from collections import deque
from collections.abc import Callable

_LINES = 5000


class LineWriter:
    """Writes to a file descriptor, in the order in which lines come.

    Args:
        descriptor: of what is written to; it may block or fail.
        on_lost: called for each line that could not be written, from any thread.
        most: lines that wait; what comes while there are as many is dropped.
    """

    def __init__(
        self, descriptor: int, on_lost: Callable[[], None] = lambda: None, most: int = _LINES
    ) -> None:
        self._descriptor = descriptor
        self._on_lost = on_lost
        self._most = most
        self._waiting: deque[str] = deque()  # the first one is being written
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Leaves a line to be written; returns at once."""
        with self._changed:
            fits = len(self._waiting) < self._most
            if fits:
                self._waiting.append(line)
                self._changed.notify_all()
            else:
                self._dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
        if not fits:
            self._on_lost()

    def take_dropped(self) -> int:
        """How many lines were dropped since this was last told; 0 as long as there is no room to say it."""
        with self._changed:
            if len(self._waiting) + 1 >= self._most:
                return 0
            dropped, self._dropped = self._dropped, 0
            return dropped

    def flush(self, seconds: float) -> bool:
        """Waits until all is written, but no longer than that; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line = self._waiting[0]
            try:
                write_line(self._descriptor, line)
            except OSError:
                self._on_lost()
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()


def write_line(descriptor: int, text: str) -> None:
    """Writes without a buffer: what could not be written would fail again when the process ends.

    Raises OSError.
    """
    line = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
    while line:
        line = line[os.write(descriptor, line) :]
