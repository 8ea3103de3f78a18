"""PAELLA at its real sizes with drawn weights: how long a caption takes, and how much memory.

    python -m benchmarks.full_size --output benchmarks/full_size.md

CLIP ViT-B/32 and XGLM with the bridge of r = 16 between them caption drawn photos: 3 beams, a prompt with
four retrieved captions, 20 new tokens, in the class that serves. Each arrangement lives in a process of its
own, so that its peak of memory is its own; those of one size take turns, so that what else the machine does
meets all alike. Beside the 564M model stands transformers' own XGLM (full_size_peer.py) with the same
weights. Larger sizes come after it, when its memory is free again; one that does not fit is named.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.full_size_parts import SIZES, Parts, drawn_photos, drawn_xglm, parameters
from benchmarks.full_size_peer import caption_with, drawn_reference
from benchmarks.full_size_report import GB, Arrangement, Measured, arrangements, report
from benchmarks.machine import available_bytes, status_bytes
from models.captions import CaptionSettings
from models.language.xglm import XGLM


class Worker:
    """An arrangement in a process of its own."""

    def __init__(self, arrangement: Arrangement, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, arrangement, threads), daemon=True)
        self._process.start()
        theirs.close()
        self._arrangement = arrangement

    @cached_property
    def measured(self) -> Measured:
        """What is known so far; waits until the model is there."""
        weights, prompt = self._pipe.recv()
        return Measured(self._arrangement, weights, prompt)

    def caption(self, photos: int, *, counted: bool = True) -> None:
        """Have so many photos captioned together."""
        self._pipe.send(photos)
        seconds, cpu_seconds, captions, peak = self._pipe.recv()
        self.measured.captions, self.measured.peak_bytes = captions, peak
        if counted:
            self.measured.seconds.setdefault(photos, []).append(seconds / photos)
            self.measured.cpu_seconds.setdefault(photos, []).append(cpu_seconds / photos)

    def end(self) -> None:
        with suppress(BrokenPipeError):  # it ended by itself, and has said why
            self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection, arrangement: Arrangement, threads: int) -> None:
    torch.set_num_threads(threads)
    size = SIZES[arrangement.size]
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts.drawn(size, arrangement.dtype, Path(folder))
        language: Any = (
            drawn_reference(size, parts.bridge)
            if arrangement.peer
            else drawn_xglm(size.language, arrangement.dtype)
        )
        caption = _peer(parts, language) if arrangement.peer else _ours(parts, language)
        named = {"image encoder": parts.vision, "language model": language, "bridge": parts.bridge}
        weights = {name: parameters(part) for name, part in named.items()}
        if arrangement.peer:
            weights["language model"] -= weights["bridge"]  # it sits in there
        _, prompt = parts.look_at(next(drawn_photos()))
        pipe.send((weights, len(prompt)))
        while (photos := pipe.recv()) is not None:
            seen = list(islice(drawn_photos(), photos))
            started, used = time.perf_counter(), time.process_time()
            captions = caption(seen)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
            pipe.send((seconds, cpu_seconds, captions, status_bytes("VmHWM")))


def _ours(parts: Parts, language: XGLM) -> Callable[[Sequence[Image.Image]], list[str]]:
    captioner = parts.captioner(language)
    return lambda photos: [
        image.captions[0].text for image in captioner.caption(photos, CaptionSettings(("en",))).images
    ]


def _peer(parts: Parts, language: Any) -> Callable[[Sequence[Image.Image]], list[str]]:
    return lambda photos: [caption_with(language, parts, photo) for photo in photos]


@contextmanager
def workers(chosen: Sequence[Arrangement], threads: int) -> Iterator[list[Worker]]:
    """Made at the same time, and ended in the end."""
    started = [Worker(arrangement, threads) for arrangement in chosen]
    try:
        yield started
    finally:
        for worker in started:
            worker.end()


def measure(chosen: Sequence[Arrangement], rounds: int, threads: int) -> list[Measured]:
    """All arrangements, in turns; the first captions of each are not counted."""
    with workers(chosen, threads) as running:
        for worker in running:
            _ = worker.measured  # nothing is timed while another model is being made
        for number in range(rounds + 1):
            for worker in running:
                for photos in reversed(worker.measured.arrangement.batches):
                    worker.caption(photos, counted=number > 0)
        return [worker.measured for worker in running]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", action="append", choices=SIZES, help="repeatable; by default 564M and 2.9B")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: does it work?")
    parser.add_argument("--output", type=Path, help="the result as Markdown")
    options = parser.parse_args(arguments)
    sizes = ["tiny"] if options.quick else options.size or ["564M", "2.9B"]
    rounds = 1 if options.quick else options.rounds
    measured: list[Measured] = []
    left_out: list[str] = []
    for size in sizes:
        chosen = arrangements(size)
        needed = sum(one.bytes_needed for one in chosen)
        if needed > (there := available_bytes()):
            left_out.append(f"{size} needs about {needed / GB:.0f} GB, and {there / GB:.0f} GB were free")
            continue
        measured += measure(chosen, rounds, options.threads)
    command = "python -m benchmarks.full_size " + " ".join(
        arguments if arguments is not None else sys.argv[1:]
    )
    page = report(command.strip(), rounds, options.threads, measured, left_out)
    print(page)
    if options.output is not None:
        options.output.write_text(page, encoding="utf-8")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
