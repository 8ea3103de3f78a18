"""What benchmarks/service.py measures, as Markdown."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from benchmarks.machine import processor


@dataclass(frozen=True)
class Overload:
    """What became of too many requests."""

    rate: float  # sent a second
    seconds: float
    sent: int
    statuses: dict[int, int]
    refused_without_retry_after: int
    hanging: int  # no answer within the client's patience
    p50: float  # seconds of those that were captioned
    p99: float
    captioned_a_second: float
    memory_before: int
    memory_most: int
    memory_after: int


@dataclass
class Measured:
    """A server in all rounds."""

    name: str
    lone_ms: list[float]
    around_ms: list[float]  # of a lone request, neither the captioner's nor decoding
    throughput: list[float]  # captions a second
    overload: Overload | None = None


@dataclass
class Direct:
    """The captioner without HTTP, in all rounds."""

    lone_ms: list[float]  # to decode and caption one photo
    decoded: list[float]  # captions a second, of photos that are decoded already
    files: list[float]  # captions a second, decoding included


def report(options: argparse.Namespace, direct: Direct, servers: Sequence[Measured]) -> str:
    own_ms, decoded, files = median(direct.lone_ms), median(direct.decoded), median(direct.files)
    lines = [
        "# The service under load",
        "",
        f"- command: `python -m benchmarks.service {' '.join(options.shown)}`",
        f"- machine: {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; the client"
        " runs on the same cores",
        f"- {options.rounds} rounds, medians; batches of at most {options.rows} captions; {options.clients}"
        f" clients for {options.seconds:g} s; one English caption a photo, {options.count} photos",
        f"- the captioner without HTTP: {own_ms:.1f} ms to decode and caption one photo, {decoded:.1f}"
        f" captions a second in batches of {options.rows} decoded photos, {files:.1f} with decoding them",
        "",
        "Added by HTTP is what of a lone request is neither the captioner's time, as the reply tells it, nor"
        " the time to decode that photo without HTTP. Its client is a plain socket.",
        "",
        "| server | lone request, ms | added by HTTP, ms | captions a second | of the captioner's own | with"
        " decoding |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for server in servers:
        ms, around, rate = median(server.lone_ms), median(server.around_ms), median(server.throughput)
        lines.append(
            f"| {server.name} | {ms:.1f} | {around:.1f} | {rate:.1f} | {100 * rate / decoded:.0f} % |"
            f" {100 * rate / files:.0f} % |"
        )
    loaded = [(server.name, server.overload) for server in servers if server.overload is not None]
    if loaded:
        lines += [
            "",
            f"Four times its own throughput for {options.overload_seconds:g} s. Times are of those that were"
            " captioned; hanging are those without an answer after 120 s.",
            "",
            "| server | sent | captioned | 429 | 503 | other | hanging | no Retry-After | p50, s | p99, s |"
            " captions a second | MB before | MB at most | MB after |",
            "| --- |" + " ---: |" * 13,
        ]
    for name, found in loaded:
        other = sum(n for status, n in found.statuses.items() if status not in (200, 429, 503, 0))
        cells = [
            name,
            *(found.sent, *(found.statuses.get(status, 0) for status in (200, 429, 503)), other),
            found.statuses.get(0, 0),
            found.refused_without_retry_after,
            f"{found.p50:.2f}",
            f"{found.p99:.2f}",
            f"{found.captioned_a_second:.1f}",
            *(round(n / 1e6) for n in (found.memory_before, found.memory_most, found.memory_after)),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
