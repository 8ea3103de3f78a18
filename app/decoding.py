"""Images are decoded in processes of their own: a hostile file can hang or crash one of those, and no more.

Decoders are large libraries in C that meet bytes from anyone. A worker that takes too long is killed, one
that dies is replaced, and its memory is bounded. Each has a pipe of its own, so that a dead one blocks
nobody else. What comes back is JSON and pixels, never unpickled: whoever takes over a worker has not taken
over the service. What is decoded, and how, app/images.py says.
"""

import asyncio
import json
import multiprocessing
import queue
import resource
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import structlog
from PIL import Image

from app.errors import ImageTimeoutError
from app.images import DecodedImage, ImageLimits, decode_image
from retrieval.errors import ImageTooLargeError, InvalidImageError

_STARTUP_SECONDS = 60
_ERRORS = {error.code: error for error in (InvalidImageError, ImageTooLargeError)}
_log = structlog.get_logger("paellera.service")

Decode = Callable[[bytes, ImageLimits], DecodedImage]


@dataclass(frozen=True)
class DecodeStatistics:
    """What became of the workers of a pool."""

    processes: tuple[int, ...] = ()  # ids of those that run
    starts: int = 0
    timeouts: int = 0  # killed over an image that took too long
    crashes: int = 0  # ended by themselves, or killed from outside


class DecodePool:
    """Worker processes, each started at the first image it gets.

    Args:
        limits: of an image.
        workers: images decoded at the same time.
        seconds: that one image may take.
        memory_bytes: address space of a worker.
        decode: what the workers do; importable by name.
    """

    def __init__(
        self,
        limits: ImageLimits,
        workers: int,
        seconds: float,
        memory_bytes: int,
        decode: Decode = decode_image,
    ) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the one used last is surely awake
        self._workers = [_Worker(decode, limits, memory_bytes, seconds) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)

    async def decode(self, images: Sequence[bytes]) -> list[DecodedImage]:
        """Decode the images of a request.

        Raises:
            InvalidImageError: as `decode_image`, or it takes too long, or crashes its decoder; of several
                images the message says which one.
        """
        loop = asyncio.get_running_loop()
        decoding = [loop.run_in_executor(self._threads, self._decode, data) for data in images]
        outcomes = await asyncio.gather(*decoding, return_exceptions=True)
        decoded = []
        for number, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, InvalidImageError) and len(images) > 1:
                raise type(outcome)(f"image {number} of {len(images)}: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
            decoded.append(outcome)
        return decoded

    @property
    def statistics(self) -> DecodeStatistics:
        """May be asked from any thread."""
        workers = self._workers
        return DecodeStatistics(
            tuple(process for worker in workers if (process := worker.process_id) is not None),
            sum(worker.starts for worker in workers),
            sum(worker.timeouts for worker in workers),
            sum(worker.crashes for worker in workers),
        )

    async def close(self) -> None:
        """Kill the workers; images that are being decoded are given up."""
        for worker in self._workers:
            worker.kill()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _decode(self, data: bytes) -> DecodedImage:
        worker = self._idle.get_nowait()  # there are as many as threads
        try:
            try:
                return worker.decode(data)
            except _WorkerDiedError:
                # The image's fault, or that of whoever killed the worker: the second attempt tells.
                return worker.decode(data)
        except _WorkerDiedError:
            raise InvalidImageError("the image is damaged: its decoder crashed") from None
        finally:
            self._idle.put(worker)


class _WorkerDiedError(Exception):
    pass


class _Worker:
    """A process, used by one thread at a time."""

    def __init__(self, decode: Decode, limits: ImageLimits, memory_bytes: int, seconds: float) -> None:
        self._arguments = decode, limits, memory_bytes
        self._seconds = seconds
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self.starts = self.timeouts = self.crashes = 0

    @property
    def process_id(self) -> int | None:
        """Of the process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def decode(self, data: bytes) -> DecodedImage:
        try:
            pipe = self._pipe or self._start()
            pipe.send_bytes(data)
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
            picture = Image.frombytes("RGB", answer["size"], pipe.recv_bytes())
            return DecodedImage(picture, answer["width"], answer["height"], answer["format"])
        except (EOFError, OSError, ValueError, KeyError) as error:  # it is gone, or talks nonsense
            self.crashes += 1
            exit_code = None if self._process is None else self._process.exitcode
            _log.warning("decoder_died", exit_code=exit_code, error=type(error).__name__)
            self.kill()
            raise _WorkerDiedError from error

    def kill(self) -> None:
        """End the process, if there is one; the next image starts another."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()

    def _start(self) -> "Connection[Any, Any]":
        # Not fork: a copy of a process with torch's threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        process.start()
        self.starts += 1
        theirs.close()
        self._process, self._pipe = process, ours
        if not ours.poll(_STARTUP_SECONDS):
            raise EOFError
        ours.recv_bytes()
        return ours


def _serve(pipe: "Connection[Any, Any]", decode: Decode, limits: ImageLimits, memory_bytes: int) -> None:
    """What a worker does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which then ends its workers
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send_bytes(b"ready")
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        try:
            decoded = decode(data, limits)
        except InvalidImageError as error:
            pipe.send_bytes(json.dumps({"code": error.code, "message": str(error)}).encode())
        else:
            header = {
                "size": decoded.image.size,
                "width": decoded.width,
                "height": decoded.height,
                "format": decoded.format,
            }
            pipe.send_bytes(json.dumps(header).encode())
            pipe.send_bytes(decoded.image.tobytes())
