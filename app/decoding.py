"""Images are decoded in processes of their own: a hostile file can hang or crash one of those, and no more.

Here is the pool of them; what one is, app/decode_worker.py says.
"""

import asyncio
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from app.decode_worker import Decode, DecodeWorker, WorkerDiedError
from app.errors import NotReadyError
from app.images import DecodedImage, ImageLimits, decode_image
from retrieval.errors import InvalidImageError

_ATTEMPTS = 5  # to decode an image, those counted that end before a worker has it


@dataclass(frozen=True)
class DecodeStatistics:
    """What became of the workers of a pool."""

    processes: tuple[int, ...] = ()  # ids of those that run
    starts: int = 0
    timeouts: int = 0  # killed over an image that took too long
    crashes: int = 0  # ended by themselves, or killed from outside


class DecodePool:
    """Worker processes, each started at the first image it gets if not before.

    Args:
        limits: of an image.
        workers: images decoded at the same time.
        seconds: that one image may take.
        memory_bytes: that a worker may take for images, beside what it needs to run at all.
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
        self._idle: queue.LifoQueue[DecodeWorker] = queue.LifoQueue()  # the one used last is surely awake
        self._workers = [DecodeWorker(decode, limits, memory_bytes, seconds) for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)

    async def start(self) -> None:
        """Start one worker, so that the first image need not wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._start_worker)

    async def decode(self, images: Sequence[bytes]) -> list[DecodedImage]:
        """Decode the images of a request.

        Raises:
            InvalidImageError: as `decode_image`, or it takes too long, or crashes its decoder; of several
                images the message says which one.
            NotReadyError: no worker can be started.
        """
        loop = asyncio.get_running_loop()
        decoding = [loop.run_in_executor(self._threads, self._decode, data) for data in images]
        if len(decoding) == 1:
            return [await decoding[0]]
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
        for worker in self._workers:  # one may have been starting
            worker.kill()

    def _start_worker(self) -> None:
        worker = self._idle.get_nowait()
        try:
            with suppress(Exception):  # whatever it is: the first image tries again, and is told
                worker.start()
        finally:
            self._idle.put(worker)

    def _decode(self, data: bytes) -> DecodedImage:
        worker = self._idle.get_nowait()  # there are as many as threads
        deaths = 0
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return worker.decode(data)
                except WorkerDiedError as error:
                    deaths += error.had_image
                # The image's fault, or that of whoever killed the worker: the second attempt tells.
                if deaths == 2:
                    raise InvalidImageError("the image is damaged: its decoder crashed")
            raise NotReadyError("no process for decoding the image could be started", 5)
        finally:
            self._idle.put(worker)
