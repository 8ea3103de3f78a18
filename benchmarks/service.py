"""The service under load, beside LitServe and Ray Serve hosting the same captioner, in one run.

    pip install 'paellera[benchmarks]'
    python -m benchmarks.service --output benchmarks/service.md
    python -m benchmarks.service --photos my-photos --host paellera --overload-seconds 300

Asked is for one English caption a photo, on this machine alone. For each server: a lone request, and how much
of it is neither the captioner's work nor the decoding of the photo; throughput with as many clients as keep
it busy, held against the captioner's own in batches of the same size; then four times that rate for a while.
Rounds of the servers alternate, and medians are reported. Caching of replies is off.
"""

import argparse
import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TypeVar

from PIL import Image

from app.commands.demo import SAMPLES
from app.images import decode_image
from benchmarks.hosts import Host, Running, litserve, paellera, ray_serve, running
from benchmarks.load import closed_loop, open_loop
from benchmarks.lone_client import one_after_the_other
from benchmarks.service_report import Direct, Measured, Overload, report
from benchmarks.target import Answer
from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from retrieval.files import replacing

HOSTS: dict[str, Callable[[int], Host]] = {"paellera": paellera, "litserve": litserve, "ray": ray_serve}
_OVERLOAD = 4
_DIRECT = 8  # times that each photo is captioned without HTTP
_SETTINGS = CaptionSettings(("en",))
T = TypeVar("T")


def lone_direct(captioner: Captioner, photos: Sequence[bytes]) -> tuple[float, list[float]]:
    """Milliseconds to decode and caption a photo, and to decode each of them: medians.

    Decoding comes after captioning another photo, as it does in a service: what the processor had at hand for
    it is gone then.
    """
    whole: list[float] = []
    decode: list[list[float]] = [[] for _ in photos]
    for _ in range(_DIRECT):
        for times, data in zip(decode, photos, strict=True):
            began = time.perf_counter()
            image = decode_image(data).image
            times.append(1000 * (time.perf_counter() - began))
            captioner.caption([image], _SETTINGS)
            whole.append(1000 * (time.perf_counter() - began))
    return median(whole), [median(times) for times in decode]


def lone_request(server: Running, photos: Sequence[bytes], decode_ms: Sequence[float]) -> tuple[float, float]:
    """Median milliseconds of a request, and of its part that is neither the captioner's nor decoding."""
    answers = one_after_the_other(server.target, photos, 8)
    good = [(one, own) for one, own in zip(answers, cycle(decode_ms)) if one.status == 200]
    whole = [1000 * one.seconds for one, _ in good]
    return median(whole), median(1000 * one.seconds - one.model_ms - own for one, own in good)


def batch_throughput(
    caption: Callable[[list[T]], object], photos: Sequence[T], rows: int, seconds: float
) -> float:
    """Captions a second in batches of so many photos."""
    turn = cycle(photos)
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        caption(list(islice(turn, rows)))
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


def read_photos(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def sample_photos() -> list[bytes]:
    """The demo's, as cameras and web sites have them: most of them are PNG, which takes ten times as long."""
    photos = []
    for sample in SAMPLES:
        with Image.open(sample.path) as picture, io.BytesIO() as file:
            picture.convert("RGB").save(file, "JPEG", quality=85)
            photos.append(file.getvalue())
    return photos


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.service", description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, help="a folder of photos; default: those of the demo, as JPEG")
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
    photos = read_photos(options.photos) if options.photos else sample_photos()
    options.count = len(photos)
    captioner = Bundle.open(default_bundle()).load_captioner()

    def caption_files(files: list[bytes]) -> None:
        captioner.caption([decode_image(data).image for data in files], _SETTINGS)

    direct = Direct([], [], [])
    hosts = [HOSTS[name](options.rows) for name in options.host or HOSTS]
    servers = [Measured(host.name, [], [], []) for host in hosts]
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}: without HTTP")
        own_ms, decode_ms = lone_direct(captioner, photos)
        direct.lone_ms.append(own_ms)
        images = [decode_image(data).image for data in photos]
        decoded = batch_throughput(
            lambda batch: captioner.caption(batch, _SETTINGS), images, options.rows, options.seconds
        )
        direct.decoded.append(decoded)
        direct.files.append(batch_throughput(caption_files, photos, options.rows, options.seconds))
        _say(f"  {direct.lone_ms[-1]:.1f} ms, {decoded:.1f} a second, {direct.files[-1]:.1f} from files")
        for host, measured in zip(hosts, servers, strict=True):
            with running(host) as server:
                throughput(server, photos, 4, 3)  # warms up
                whole, around = lone_request(server, photos, decode_ms)
                measured.lone_ms.append(whole)
                measured.around_ms.append(around)
                rate = throughput(server, photos, options.clients, options.seconds)
                measured.throughput.append(rate)
                _say(f"  {measured.name}: {whole:.1f} ms ({around:.1f} around), {rate:.1f} a second")
                if options.overload_seconds and number + 1 == options.rounds:
                    too_many = _OVERLOAD * median(measured.throughput)
                    measured.overload = overload(server, photos, too_many, options.overload_seconds)
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
