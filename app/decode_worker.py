"""A process that decodes images, and what the service knows of it.

Decoders are large libraries in C that meet bytes from anyone. A worker that takes too long is killed, and
its memory is bounded. It has a pipe of its own, so that a dead one blocks nobody else. What comes back is
JSON, and pixels in memory that both see, never unpickled: whoever takes over a worker has not taken over the
service. What is decoded, and how, app/images.py says.
"""

import ctypes
import json
import multiprocessing
import operator
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from app.errors import ImageTimeoutError
from app.images import DecodedImage, ImageLimits, check_bytes
from app.shared_buffer import SharedBuffer
from retrieval.errors import ImageTooLargeError, InvalidImageError

_STARTUP_SECONDS = 60
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_ERRORS = {error.code: error for error in (InvalidImageError, ImageTooLargeError)}
_log = structlog.get_logger("paellera.service")

Decode = Callable[[bytes, ImageLimits], DecodedImage]


class WorkerDiedError(Exception):
    """`had_image`: it had begun to decode, so the image may be what it died of."""

    def __init__(self, had_image: bool) -> None:
        super().__init__()
        self.had_image = had_image


class DecodeWorker:
    """A process, used by one thread at a time."""

    def __init__(self, decode: Decode, limits: ImageLimits, memory_bytes: int, seconds: float) -> None:
        self._decode = decode
        self._limits = limits
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        # The file goes there, the pixels come back.
        self._bytes = max(limits.max_bytes, _pixel_bytes((limits.max_side, limits.max_side)))
        self._buffer: SharedBuffer | None = None
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self.starts = self.timeouts = self.crashes = 0

    @property
    def process_id(self) -> int | None:
        """Of the process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start the process, if there is none. Raises whatever multiprocessing raises, and EOFError."""
        if self._pipe is not None:
            return
        try:
            self._start()
        except Exception:
            self.kill()
            raise

    def decode(self, data: bytes) -> DecodedImage:
        check_bytes(data, self._limits)
        had_image = False
        try:
            if self._pipe is None or self._buffer is None:
                pipe, buffer = self._start()
            else:
                pipe, buffer = self._pipe, self._buffer
            buffer[: len(data)] = data
            pipe.send_bytes(b"%d" % len(data))
            had_image = True
            if not pipe.poll(self._seconds):
                self.timeouts += 1
                _log.warning("decoder_timeout", seconds=self._seconds, bytes=len(data))
                self.kill()
                raise ImageTimeoutError(
                    f"the image takes more than {self._seconds:g} s to decode: send it smaller"
                )
            answer = json.loads(pipe.recv_bytes())
            if "code" in answer:
                raise _ERRORS[answer["code"]](answer["message"])
            picture = _read_picture(buffer, answer["size"])
            return DecodedImage(picture, answer["width"], answer["height"], answer["format"])
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:  # it is gone, or talks nonsense
            self.crashes += 1
            exit_code = None if self._process is None else self._process.exitcode
            _log.warning("decoder_died", exit_code=exit_code, error=type(error).__name__)
            self.kill()
            raise WorkerDiedError(had_image) from error

    def kill(self) -> None:
        """End the process, if there is one; the next image starts another."""
        process, pipe, buffer = self._process, self._pipe, self._buffer
        self._process = self._pipe = self._buffer = None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()
        if buffer is not None:
            buffer.close()

    def _start(self) -> "tuple[Connection[Any, Any], SharedBuffer]":
        # Not fork: a copy of a process with torch's threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        buffer = SharedBuffer.of_size(self._bytes)
        arguments = theirs, buffer, self._decode, self._limits, self._memory_bytes
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        self.starts += 1
        theirs.close()
        self._process, self._pipe, self._buffer = process, ours, buffer
        if not ours.poll(_STARTUP_SECONDS):
            raise EOFError
        ours.recv_bytes()
        return ours, buffer


def _read_picture(buffer: SharedBuffer, size: Any) -> Image.Image:
    """A copy of the pixels. Raises ValueError or TypeError for a size that cannot be."""
    width, height = (operator.index(side) for side in size)
    if min(width, height) < 1 or _pixel_bytes((width, height)) > len(buffer):
        raise ValueError
    with memoryview(buffer) as whole, whole[: _pixel_bytes((width, height))] as pixels:
        return Image.frombytes("RGB", (width, height), pixels)


def _pixel_bytes(size: tuple[int, int]) -> int:
    return 3 * size[0] * size[1]


def _serve(
    pipe: "Connection[Any, Any]",
    buffer: SharedBuffer,
    decode: Decode,
    limits: ImageLimits,
    memory_bytes: int,
) -> None:
    """What a worker does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends its workers
    limit = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_freed_memory()
    # Libraries in C write there what they think of a file, which would break the lines of the service's log.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    pipe.send_bytes(b"ready")
    while True:
        try:
            length = int(pipe.recv_bytes())
        except EOFError:
            return
        try:
            decoded = decode(buffer[:length], limits)
        except InvalidImageError as error:
            pipe.send_bytes(json.dumps({"code": error.code, "message": str(error)}).encode())
        else:
            header = {
                "size": decoded.image.size,
                "width": decoded.width,
                "height": decoded.height,
                "format": decoded.format,
            }
            pixels = decoded.image.tobytes()
            buffer[: len(pixels)] = pixels
            pipe.send_bytes(json.dumps(header).encode())


def _keep_freed_memory() -> None:
    """Some of it, for the next image: what glibc gives back must be had again page by page.

    Larger pieces than 32 MB are still given back.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, 32 * 2**20)
        set_option(_M_TRIM_THRESHOLD, 64 * 2**20)


def _address_space() -> int:
    """Bytes that this process has before its first image: a numpy for many processors reserves gigabytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        return 0
    return pages * resource.getpagesize()
