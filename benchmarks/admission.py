"""Would it pay to let requests join a batch between two decoding steps, as servers of chat models do?

The pieces of captioning are timed on this machine: preparing n photos (encoding, retrieval, reading
prompts), and one decoding step of r rows. With them two ways of serving are simulated on the same arrivals:
batches that run to their end, as app/batching.py has them, and continuous admission at its best, where
joining costs nothing but preparing, a row that is done leaves at once, and its reply with it.

    python -m benchmarks.admission --output benchmarks/admission.md
"""

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from app.commands.demo import SAMPLES
from benchmarks.machine import describe_machine
from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings
from retrieval.files import replacing

_Asked = tuple[Image.Image, tuple[str, ...]]  # a photo and its language
_SIZES = (1, 2, 4, 8, 16)
_MOST_ROWS = 16  # the service's default
_LOADS = (0.3, 0.6, 0.8, 0.95)  # of what whole batches can do at most
_REQUESTS = 20_000


@dataclass(frozen=True)
class Costs:
    """Seconds by number of rows, and how many steps captions take."""

    prepare: Callable[[int], float]
    step: Callable[[int], float]
    steps: Sequence[int]  # of each sample photo, alone


@dataclass
class Recorder:
    """Takes the language model's place: when prompts were read, and the rows and end of each step."""

    model: Any
    read: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def start(self, *given: Any, **named: Any) -> Any:
        continuation = self.model.start(*given, **named)
        extend = continuation.extend

        def recorded(parents: Tensor, tokens: Tensor) -> Tensor:
            hidden: Tensor = extend(parents, tokens)
            self.steps.append((len(tokens), time.perf_counter()))
            return hidden

        continuation.extend = recorded
        self.read, self.steps = time.perf_counter(), []
        return continuation


def measure(captioner: Captioner, asked: Sequence[_Asked], repeats: int) -> tuple[Costs, list[str]]:
    """The costs, and a Markdown table of whole batches by size.

    Args:
        asked: what batches are drawn from.
        repeats: batches of each size.
    """
    rng = random.Random(0)
    recorder: Any = Recorder(captioner._language_model)
    captioner._language_model = recorder

    def run(batch: Sequence[_Asked]) -> tuple[float, float]:
        """Seconds until all prompts were read, and altogether."""
        began = time.perf_counter()
        captioner.caption_each([photo for photo, _ in batch], [own for _, own in batch], CaptionSettings(()))
        return recorder.read - began, time.perf_counter() - began

    alone = []
    for one in asked:
        run([one])
        alone.append(len(recorder.steps))
    prepared: dict[int, list[float]] = defaultdict(list)
    stepped: dict[int, list[float]] = defaultdict(list)
    whole: dict[int, list[float]] = defaultdict(list)
    used, needed = defaultdict[int, int](int), defaultdict[int, int](int)
    for _ in range(repeats):
        for size in _SIZES:
            drawn = [rng.randrange(len(asked)) for _ in range(size)]
            preparing, altogether = run([asked[number] for number in drawn])
            prepared[size].append(preparing)
            whole[size].append(altogether)
            before = recorder.read
            for rows, ended in recorder.steps:
                stepped[rows].append(ended - before)
                before = ended
            used[size] += sum(rows for rows, _ in recorder.steps)
            needed[size] += sum(alone[number] for number in drawn)
    captioner._language_model = recorder.model
    table = [
        "| rows | captions a second | ms a batch | of them preparing | row-steps more than needed |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in _SIZES:
        seconds, preparing = statistics.median(whole[size]), statistics.median(prepared[size])
        table.append(
            f"| {size} | {size / seconds:.1f} | {1000 * seconds:.0f} | {1000 * preparing:.0f} | "
            f"{used[size] / needed[size] - 1:.0%} |"
        )
    return Costs(_line(prepared), _line(stepped), alone), table


def _line(samples: dict[int, list[float]]) -> Callable[[int], float]:
    """Medians by number, interpolated."""
    at = sorted(samples)
    medians = [statistics.median(samples[number]) for number in at]
    return lambda number: float(np.interp(number, at, medians))


def whole_batches(arrivals: Sequence[float], steps: Sequence[int], costs: Costs) -> list[float]:
    """Latency of each request where what waits is taken together and answered together."""
    now, taken, latencies = 0.0, 0, list[float]()
    while taken < len(arrivals):
        now = max(now, arrivals[taken])
        end = taken
        while end < len(arrivals) and end - taken < _MOST_ROWS and arrivals[end] <= now:
            end += 1
        now += costs.prepare(end - taken) + sum(costs.step(rows) for rows in _rows_of(steps[taken:end]))
        latencies += [now - arrival for arrival in arrivals[taken:end]]
        taken = end
    return latencies


def _rows_of(steps: Sequence[int]) -> Iterator[int]:
    """Rows of each step of a batch: models/generation.py drops those done once they are half of it."""
    rows = len(steps)
    for step in range(max(steps)):
        left = sum(own > step for own in steps)
        if 2 * left <= rows:
            rows = left
        yield rows


def continuous(arrivals: Sequence[float], steps: Sequence[int], costs: Costs) -> list[float]:
    """Latency of each request where they join between two steps and leave when they are done."""
    now, taken, latencies = 0.0, 0, list[float]()
    running: list[tuple[int, float]] = []  # steps left, arrival
    while taken < len(arrivals) or running:
        if not running:
            now = max(now, arrivals[taken])
        joining = 0
        while taken < len(arrivals) and len(running) < _MOST_ROWS and arrivals[taken] <= now:
            running.append((steps[taken], arrivals[taken]))
            joining, taken = joining + 1, taken + 1
        if joining:
            now += costs.prepare(joining)
        now += costs.step(len(running))
        latencies += [now - arrival for left, arrival in running if left == 1]
        running = [(left - 1, arrival) for left, arrival in running if left > 1]
    return latencies


def compare(costs: Costs) -> list[str]:
    """A Markdown table: throughput with a queue that never empties, and latencies at several loads."""
    rng = random.Random(0)
    steps = rng.choices(costs.steps, k=_REQUESTS)
    ways = {"whole batches": whole_batches, "continuous admission, at best": continuous}
    most = {name: _REQUESTS / max(way([0.0] * _REQUESTS, steps, costs)) for name, way in ways.items()}
    headings = [f"at {load:.0%}: median / p95, ms" for load in _LOADS]
    table = [
        f"| | captions a second at most | {' | '.join(headings)} |",
        "| --- |" + " ---: |" * (1 + len(_LOADS)),
    ]
    for name, way in ways.items():
        cells = [f"{most[name]:.1f}"]
        for load in _LOADS:
            arrivals = _poisson(load * most["whole batches"])
            milliseconds = sorted(1000 * seconds for seconds in way(arrivals, steps, costs))
            cells.append(f"{milliseconds[_REQUESTS // 2]:.0f} / {milliseconds[int(0.95 * _REQUESTS)]:.0f}")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


def _poisson(rate: float) -> list[float]:
    rng, now, arrivals = random.Random(1), 0.0, list[float]()
    for _ in range(_REQUESTS):
        now += rng.expovariate(rate)
        arrivals.append(now)
    return arrivals


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.admission", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=10, help="batches of each size")
    parser.add_argument("--output", type=Path, help="the result as Markdown")
    options = parser.parse_args(arguments)
    captioner = Bundle.open(default_bundle()).load_captioner()
    photos = []
    for sample in SAMPLES:
        with Image.open(sample.path) as photo:
            photos.append(photo.convert("RGB"))
    asked = [(photo, (language,)) for photo in photos for language in captioner.languages]
    costs, table = measure(captioner, asked, options.repeats)
    page = "\n".join(
        [
            "# Batches to their end, or continuous admission",
            "",
            f"- command: `python -m benchmarks.admission --repeats {options.repeats}`",
            f"- machine: {describe_machine()}",
            f"- the compact bundle, {len(photos)} photos in {len(captioner.languages)} languages, drawn at "
            f"random; {options.repeats} batches of each size, medians",
            f"- captions take {min(costs.steps)} to {max(costs.steps)} decoding steps, "
            f"{statistics.mean(costs.steps):.1f} in the mean",
            "",
            "## Whole batches, measured",
            "",
            *table,
            "",
            "## Both ways, simulated",
            "",
            f"With the times above, {_REQUESTS:,} requests, at most {_MOST_ROWS} rows at once; loads are "
            "parts of what whole batches do at most.",
            "",
            *compare(costs),
            "",
        ]
    )
    print(page)
    if options.output is not None:
        with replacing(options.output) as temporary:
            temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
