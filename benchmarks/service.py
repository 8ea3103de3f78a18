"""The service under load, beside LitServe and Ray Serve hosting the same captioner, in one run.

    pip install 'paellera[benchmarks]'
    python -m benchmarks.service --output benchmarks/service.md
    python -m benchmarks.service --photos my-photos --host paellera --overload-seconds 300

Asked is for one English caption a photo, on this machine alone. For each server: a lone request, held against
decoding and captioning the same photo without HTTP; throughput with as many clients as keep it busy, held
against the captioner's own in batches of the same size; then four times that rate for a while. Rounds of the
servers alternate, and medians are reported. Caching of replies is off.
"""

import argparse
import json
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from app.commands.demo import SAMPLES
from app.images import decode_image
from benchmarks.hosts import Host, Running, litserve, paellera, ray_serve, running
from benchmarks.load import Answer, closed_loop, open_loop
from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from retrieval.files import replacing

HOSTS: dict[str, Callable[[int], Host]] = {"paellera": paellera, "litserve": litserve, "ray": ray_serve}
_OVERLOAD = 4
_SETTINGS = CaptionSettings(("en",))


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
    throughput: list[float]  # captions a second
    overload: Overload | None = None


def lone_direct(captioner: Captioner, photos: Sequence[bytes], count: int) -> float:
    """Median milliseconds of decoding and captioning one photo."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        captioner.caption([decode_image(photos[number % len(photos)]).image], _SETTINGS)
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


def batch_throughput(captioner: Captioner, photos: Sequence[bytes], rows: int, seconds: float) -> float:
    """Captions a second in batches of so many decoded photos."""
    images = [decode_image(data).image for data in photos]
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        captioner.caption([images[(done + number) % len(images)] for number in range(rows)], _SETTINGS)
        done += rows
    return done / (time.perf_counter() - began)


def throughput(server: Running, photos: Sequence[bytes], clients: int, seconds: float) -> float:
    began = time.perf_counter()
    answers = closed_loop(server.target, photos, clients, seconds)
    return _captioned(answers) / (time.perf_counter() - began)


def overload(server: Running, photos: Sequence[bytes], rate: float, seconds: float) -> Overload:
    """Send at a rate and watch the memory."""
    samples = [server.memory()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(2):
            samples.append(server.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    answers = open_loop(server.target, photos, rate, seconds)
    taken = time.perf_counter() - began
    stop.set()
    watcher.join()
    good = sorted(answer.seconds for answer in answers if answer.status == 200) or [0.0]
    refused = [answer for answer in answers if answer.status in (429, 503)]
    return Overload(
        rate=rate,
        seconds=seconds,
        sent=len(answers),
        statuses=dict(sorted(Counter(answer.status for answer in answers).items())),
        refused_without_retry_after=sum(not answer.retry_after for answer in refused),
        hanging=sum(answer.status == 0 and answer.seconds > 100 for answer in answers),
        p50=good[len(good) // 2],
        p99=good[min(len(good) - 1, int(0.99 * len(good)))],
        captioned_a_second=_captioned(answers) / taken,
        memory_before=samples[0],
        memory_most=max(samples),
        memory_after=server.memory(),
    )


def _captioned(answers: Sequence[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def report(options: argparse.Namespace, direct: Measured, servers: Sequence[Measured]) -> str:
    own_ms, own = median(direct.lone_ms), median(direct.throughput)
    lines = [
        "# The service under load",
        "",
        f"- command: `python -m benchmarks.service {' '.join(options.shown)}`",
        f"- machine: {_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; the client"
        " runs on the same cores",
        f"- {options.rounds} rounds, medians; batches of at most {options.rows} captions; {options.clients}"
        f" clients for {options.seconds:g} s; one English caption a photo, {options.count} photos",
        f"- the captioner without HTTP: {own_ms:.1f} ms to decode and caption one photo, {own:.1f} captions a"
        f" second in batches of {options.rows} decoded photos",
        "",
        "| server | lone request, ms | above no HTTP, ms | captions a second | of the captioner's own |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for server in servers:
        ms, rate = median(server.lone_ms), median(server.throughput)
        lines.append(
            f"| {server.name} | {ms:.1f} | {ms - own_ms:+.1f} | {rate:.1f} | {100 * rate / own:.0f} % |"
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.service", description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, help="a folder of photos; default: those of the demo")
    parser.add_argument("--host", action="append", choices=HOSTS, help="repeatable; default: all")
    parser.add_argument("--rows", type=int, default=16, help="captions in a batch, of every server")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of throughput")
    parser.add_argument("--overload-seconds", type=float, default=60, help="0: no overload")
    parser.add_argument(
        "--output", type=Path, help="the report as Markdown, with the numbers as JSON beside it"
    )
    options = parser.parse_args(arguments)
    options.shown = sys.argv[1:] if arguments is None else arguments
    files = sorted(options.photos.iterdir()) if options.photos else [sample.path for sample in SAMPLES]
    photos = [file.read_bytes() for file in files]
    options.count = len(photos)
    captioner = Bundle.open(default_bundle()).load_captioner()
    direct = Measured("direct", [], [])
    servers = [Measured(name, [], []) for name in options.host or HOSTS]
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}: without HTTP")
        direct.lone_ms.append(lone_direct(captioner, photos, 40))
        direct.throughput.append(batch_throughput(captioner, photos, options.rows, options.seconds))
        for measured in servers:
            with running(HOSTS[measured.name](options.rows)) as server:
                throughput(server, photos, 4, 3)  # warms up
                alone = [one.seconds for one in closed_loop(server.target, photos, 1, 8) if one.status == 200]
                measured.lone_ms.append(1000 * median(alone))
                measured.throughput.append(throughput(server, photos, options.clients, options.seconds))
                found = f"{measured.lone_ms[-1]:.1f} ms, {measured.throughput[-1]:.1f} a second"
                _say(f"  {measured.name}: {found}")
                if options.overload_seconds and number + 1 == options.rounds:
                    rate = _OVERLOAD * median(measured.throughput)
                    measured.overload = overload(server, photos, rate, options.overload_seconds)
                    _say(f"  {measured.name}: {measured.overload}")
    text = report(options, direct, servers)
    print(text)
    if options.output:
        document = {"direct": asdict(direct), "servers": [asdict(server) for server in servers]}
        for path, content in (
            (options.output, text),
            (options.output.with_suffix(".json"), json.dumps(document, indent=1) + "\n"),
        ):
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
