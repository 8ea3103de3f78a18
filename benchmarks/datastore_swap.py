"""How long a swap of the datastore takes, and what requests notice of it.

    python -m benchmarks.datastore_swap --entries 300 --entries 100000 --output swap.md

For each size: two versions are made of random vectors, `paellera serve` with the compact bundle answers a few
clients that never pause, first without swaps and then with one every few seconds, asked for over HTTP.
A swap's time is that of the request for it: open and hash the new version, search and caption with it,
exchange.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage

from app.access.keys import new_key, write_keys
from benchmarks.machine import processor, status_bytes
from datastore_build.build import build_datastore
from models.bundle import Bundle, default_bundle

ROOT = Path(__file__).parent.parent
_STARTUP_SECONDS = 180
_WORDS = ("a", "dog", "cat", "runs", "sleeps", "on", "near", "the", "beach", "street", "with", "red", "ball")


class RandomEmbedder:
    """Vectors on the sphere that no text has made, under the name of the bundle's embedder."""

    def __init__(self, embedder_id: str, dimension: int, seed: int) -> None:
        self.id, self.dimension = embedder_id, dimension
        self._drawn = np.random.default_rng(seed)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._drawn.standard_normal((len(texts), self.dimension), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class Load:
    """Clients that ask for a caption, and for the next one as soon as they have it."""

    url: str
    key: str
    photo: bytes
    answers: list[tuple[float, float, int]] = field(default_factory=list)  # began, ended, status

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                began = time.perf_counter()
                status, _ = _send(f"{self.url}/v1/captions?language=en", self.key, self.photo, "image/png")
                self.answers.append((began, time.perf_counter(), status))

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@dataclass(frozen=True)
class Measured:
    entries: int
    megabytes: float
    swaps_ms: list[float]
    quiet_ms: list[float]  # latencies without swaps
    beside_ms: list[float]  # latencies of requests under way during a swap
    lost: int
    resident_mb: tuple[float, float]  # before the first swap and after the last one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, action="append", help="of each version; may repeat")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two swaps")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results = [_measure(entries, options) for entries in options.entries or [300, 100_000]]
    text = _report(results, options)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def _measure(entries: int, options: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        datastore = Path(folder) / "datastore"
        versions = [_publish(datastore, entries, seed) for seed in (1, 2)]
        token, key = new_key("benchmark", admin=True)
        write_keys(Path(folder) / "keys.json", [key])
        size = sum(path.stat().st_size for path in (datastore / "versions" / versions[0]).iterdir())
        photo = (Path(skimage.__file__).parent / "data" / "chelsea.png").read_bytes()
        with _serving(datastore, Path(folder) / "keys.json") as (url, process):
            load, swaps = Load(url, token, photo), []
            with load.running(options.clients):
                time.sleep(3.0)
                load.answers.clear()
                time.sleep(max(5.0, options.pause * options.swaps / 2))
                quiet = list(load.answers)
                before = status_bytes("VmRSS", process.pid) / 1e6
                for number in range(options.swaps):
                    body = json.dumps({"version": versions[number % 2]}).encode()
                    began = time.perf_counter()
                    status, reply = _send(f"{url}/v1/datastore/activate", token, body, "application/json")
                    swaps.append((began, time.perf_counter()))
                    if status != 200:
                        raise RuntimeError(f"the swap was refused: {reply!r}")
                    time.sleep(options.pause)
            after = status_bytes("VmRSS", process.pid) / 1e6
    beside = [
        1000 * (ended - began)
        for began, ended, _ in load.answers
        if any(began < swap_ended and ended > swap_began for swap_began, swap_ended in swaps)
    ]
    return Measured(
        entries=entries,
        megabytes=size / 1e6,
        swaps_ms=[1000 * (ended - began) for began, ended in swaps],
        quiet_ms=[1000 * (ended - began) for began, ended, _ in quiet],
        beside_ms=beside,
        lost=sum(status != 200 for _, _, status in load.answers),
        resident_mb=(before, after),
    )


def _publish(datastore: Path, entries: int, seed: int) -> str:
    embedder = Bundle.open(default_bundle()).load_embedder()
    drawn = np.random.default_rng(seed)
    source = datastore.with_name(f"captions-{seed}.jsonl")
    with source.open("w", encoding="utf-8") as file:
        for number in range(entries):
            text = " ".join(drawn.choice(_WORDS, 9))
            file.write(json.dumps({"id": f"{seed}-{number}", "text": text}) + "\n")
    return build_datastore([source], datastore, RandomEmbedder(embedder.id, embedder.dimension, seed)).version


@contextmanager
def _serving(datastore: Path, keys: Path) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    settings = {
        "PORT": "0",
        "DATASTORE": str(datastore),
        "KEYS_FILE": str(keys),
        "CACHE_BYTES": "0",
        "DATASTORE_POLL_SECONDS": "0",
        "DRAIN_SECONDS": "0",
    }
    environment = os.environ | {f"PAELLERA_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "app.cli", "serve"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            url = next(line.split()[3].decode() for line in process.stderr if b"listens on" in line)
            said: list[bytes] = []
            threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
            end = time.monotonic() + _STARTUP_SECONDS
            while _send(f"{url}/readyz", "", None, "")[0] != 200:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the service did not start: {b''.join(said).decode()}")
                time.sleep(0.2)
            yield url, process
        finally:
            process.terminate()
            process.wait(60)


def _send(url: str, key: str, body: bytes | None, media_type: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": media_type} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, error


def _report(results: Sequence[Measured], options: argparse.Namespace) -> str:
    lines = [
        "# Swapping the datastore under load",
        "",
        f"- command: `python -m benchmarks.datastore_swap {' '.join(sys.argv[1:])}`",
        f"- machine: {processor()}, {os.cpu_count()} processors; the clients run on the same ones",
        f"- {options.swaps} swaps to and fro, {options.pause:g} s apart; {options.clients} clients, one"
        " English caption a request, each asks again as soon as it is answered",
        "",
        "| entries | MB a version | swap, ms: median / worst | request without swaps, ms: median / worst |"
        " request beside a swap, ms: median / worst | requests lost | resident MB before / after |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        lines.append(
            f"| {one.entries:,} | {one.megabytes:.1f} | {_both(one.swaps_ms)} | {_both(one.quiet_ms)} |"
            f" {_both(one.beside_ms)} | {one.lost} | {one.resident_mb[0]:.0f} / {one.resident_mb[1]:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _both(values: Sequence[float]) -> str:
    return f"{median(values):.0f} / {max(values):.0f}"


if __name__ == "__main__":
    main()
