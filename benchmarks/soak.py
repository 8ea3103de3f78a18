"""A soak: the real service for a while, under good requests, bad ones, and clients that misbehave.

    pip install 'paellera[benchmarks,demo]'
    python -m benchmarks.soak --minutes 20 --output docs/soak.md
    python -m benchmarks.soak --minutes 2

Starts `paellera serve` with the compact bundle on this machine, finds how many good requests it answers a
second, and sends a share of that at random moments: most of them good, of every endpoint, the others hostile
input or spoilt on the wire (benchmarks/chaos.py), beside some clients that are always slow. Meanwhile it
looks at the memory, descriptors and threads of the service and its decode processes, of which it kills one
now and then. Exit code 1 if a verdict is bad.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.commands.demo import SAMPLES
from benchmarks.chaos import Chaos
from benchmarks.machine import processor
from benchmarks.soak_report import draw, markdown
from benchmarks.soak_service import Sample, Service, serving
from benchmarks.soak_traffic import Asked, Traffic
from benchmarks.soak_verdicts import Verdict, at_most, back, flat, percentile
from benchmarks.wire import Response, ask, get
from retrieval.files import replacing

_CLIENTS = 16  # that keep it busy while its capacity is measured
_BAD_SHARE, _CHAOS_SHARE = 0.15, 0.15  # of the requests sent
_SLOW_CLIENTS = 8
_KILL_EVERY = 45.0  # seconds between two kills of a decode process
_REST_SECONDS = 60.0  # for the last ones under way
_MOST_REFUSED = 0.02  # of good requests, by a queue that is full for a moment
_POOL_THREADS = 40  # anyio's, which come and go


@dataclass
class Tally:
    """What became of the requests."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0  # 429 and 503 with Retry-After
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> int:
        return sum(map(len, self.seconds.values())) + self.refused + len(self.wrong)


class Soak:
    """One run against one service."""

    def __init__(self, service: Service, traffic: Traffic, draw: random.Random) -> None:
        self.service = service
        self.traffic = traffic
        self.good, self.bad = Tally(), Tally()
        self.samples: list[Sample] = []
        self.chaos = Chaos(service.host, service.port, traffic.victims(), draw)
        self.slow = Chaos(service.host, service.port, traffic.victims(), draw, slowest=20.0, only_slow=True)
        self.killed = 0  # decode processes
        self._draw = draw
        self._began = time.monotonic()

    async def capacity(self, seconds: float) -> float:
        """Good requests answered a second, by clients that come again as soon as they are answered."""
        tally, end = Tally(), time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end:
                await self._ask(self.traffic.good(), tally)

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        return sum(map(len, tally.seconds.values())) / (time.monotonic() - began)

    async def run(self, rate: float, seconds: float, every: float) -> None:
        """`rate` requests a second, at random moments, and a look at the service every few seconds."""
        self._began = time.monotonic()
        end = self._began + seconds
        watching = asyncio.create_task(self._watch(end, every))
        killing = asyncio.create_task(self._kill(end))
        slow = [asyncio.create_task(_again(self.slow.misbehave, end)) for _ in range(_SLOW_CLIENTS)]
        under_way: set[asyncio.Task[None]] = set()
        moment = self._began
        while (moment := moment + self._draw.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            task = asyncio.create_task(self._one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(watching, killing, *slow, *under_way)

    async def _kill(self, end: float) -> None:
        while time.monotonic() + _KILL_EVERY < end:
            await asyncio.sleep(_KILL_EVERY)
            self.service.kill_decoder(self._draw)
            self.killed += 1

    def _one(self) -> Coroutine[Any, Any, None]:
        chosen = self._draw.random()
        if chosen < _CHAOS_SHARE:
            return self.chaos.misbehave()
        if chosen < _CHAOS_SHARE + _BAD_SHARE:
            return self._ask(self.traffic.bad(), self.bad)
        return self._ask(self.traffic.good(), self.good)

    async def _ask(self, asked: Asked, tally: Tally) -> None:
        began = time.monotonic()
        try:
            response = await ask(self.service.host, self.service.port, asked.request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            response = Response(0, {}, repr(error).encode())
        tally.statuses[str(response.status or "no answer")] += 1
        if is_told_to_wait(response):
            tally.refused += 1
        elif _is_right(asked, response, of_good=tally is not self.bad):
            tally.seconds[asked.name].append(time.monotonic() - began)
        else:
            tally.wrong.append(f"{asked.name}: {response.status} {response.body[:200]!r}")

    async def _watch(self, end: float, every: float) -> None:
        while time.monotonic() < end:
            self.samples.append(await self.service.sample(self._began))
            await asyncio.sleep(every)


def is_told_to_wait(response: Response) -> bool:
    """Also in a stream, which has begun when a request has waited for too long."""
    streamed = b"event: error" in response.body and b":problem:queue_timeout" in response.body
    return (response.status in (429, 503) and "retry-after" in response.headers) or streamed


def _is_right(asked: Asked, response: Response, *, of_good: bool) -> bool:
    if of_good and response.status != 200:
        return False
    try:
        return asked.is_right(response)
    except (ValueError, KeyError, IndexError):  # not the document it should be
        return False


async def _again(work: Callable[[], Awaitable[None]], end: float) -> None:
    while time.monotonic() < end:
        await work()


async def soak(service: Service, options: argparse.Namespace) -> tuple[Soak, list[Verdict], list[str]]:
    """The run, what it has shown, and how it was done."""
    drawn = random.Random(options.seed)
    languages = (await ask(service.host, service.port, get("/v1/languages"))).json["languages"]
    model = (await ask(service.host, service.port, get("/v1/models"))).json["data"][0]["id"]
    photos = [sample.path.read_bytes() for sample in SAMPLES]
    traffic = Traffic(photos, [one["code"] for one in languages], model, drawn)
    run = Soak(service, traffic, drawn)
    await run.capacity(options.warm_up)  # what is made only once is made here
    capacity = await run.capacity(options.warm_up)
    rate = options.share * capacity
    _say(f"{capacity:.1f} good requests a second; {rate:.1f} a second for {options.minutes:g} minutes")
    await service.at_rest(_REST_SECONDS)
    before = await service.sample(time.monotonic())
    await run.run(rate, 60 * options.minutes, options.every)
    rested = await service.at_rest(_REST_SECONDS)
    after = await service.sample(time.monotonic())
    errors = [str(line["event"]) for line in service.log_lines("error", "critical")]
    exit_code = service.stop()
    for complaint in [*run.good.wrong, *run.bad.wrong, *errors][:40]:
        _say(complaint)
    setting = [
        f"command: `python -m benchmarks.soak {' '.join(options.shown)}`",
        f"machine: {processor()}, {os.cpu_count()} processors; the clients run on the same ones",
        f"capacity: {capacity:.1f} good requests a second by {_CLIENTS} clients; sent were {rate:.1f} a"
        f" second ({100 * options.share:.0f} %), {100 * _BAD_SHARE:.0f} % of them hostile input and"
        f" {100 * _CHAOS_SHARE:.0f} % spoilt on the wire, beside {_SLOW_CLIENTS} slow clients at all times",
        f"{run.killed} times a decode process was killed (SIGKILL)",
        f"the service looked at every {options.every:g} s; seed {options.seed}",
    ]
    return run, verdicts(run, before, after, rested, errors, exit_code), setting


def verdicts(
    run: Soak, before: Sample, after: Sample, rested: bool, errors: Sequence[str], exit_code: int
) -> list[Verdict]:
    """What the run has shown."""
    times = [sample.seconds for sample in run.samples]
    good, bad = run.good, run.bad
    faults = sum(tally.statuses["500"] for tally in (good, bad))
    answered = [second for kind in good.seconds.values() for second in kind]
    return [
        at_most("good requests answered wrongly or not at all", len(good.wrong), good.good),
        at_most("good requests told to come later (429, 503)", good.refused, good.good, _MOST_REFUSED),
        at_most("hostile inputs not refused with 4xx", len(bad.wrong), bad.good),
        at_most("answers of 500", faults, good.good + bad.good),
        Verdict("errors in the log", not errors, ", ".join(sorted(set(errors))[:5]) or "none"),
        flat("memory of the service", times, [sample.service_mb for sample in run.samples]),
        flat("memory of the decode processes", times, [sample.decoders_mb for sample in run.samples]),
        back("file descriptors at rest", before.descriptors, after.descriptors, slack=2),
        back("processes it has started, at rest", before.decoders, after.decoders),
        back("threads at rest", before.threads, after.threads, slack=_POOL_THREADS),
        Verdict("nothing waits or is under way at rest", rested, "yes" if rested else "no"),
        Verdict(
            "99 of 100 good requests answered within 20 s",
            percentile(answered, 0.99) < 20,
            f"p50 {percentile(answered, 0.5):.2f} s, p99 {percentile(answered, 0.99):.2f} s",
        ),
        Verdict("ends at SIGTERM with exit code 0", exit_code == 0, f"exit code {exit_code}"),
    ]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity that is asked for")
    parser.add_argument("--every", type=float, default=5, help="seconds between two looks at the service")
    parser.add_argument("--warm-up", type=float, default=20, help="seconds, and as many for the capacity")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="the report as Markdown; its plot goes into images/")
    parser.add_argument("--log", type=Path, help="keep the service's log here")
    options = parser.parse_args(arguments)
    options.shown = sys.argv[1:] if arguments is None else arguments
    # A head has less time than by default, so that many slow clients meet their end.
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(options.log or Path(folder, "log"), {"header_seconds": 5}) as service,
    ):
        run, found, setting = asyncio.run(soak(service, options))
    counts = {
        "Good requests by status": run.good.statuses,
        "Hostile inputs by status": run.bad.statuses,
        "Misbehaviour on the wire": run.chaos.done + run.slow.done,
    }
    plot = Path("images", f"{options.output.stem if options.output else 'soak'}.png")
    text = markdown(setting, found, run.good.seconds, counts, str(plot))
    print(text)
    if options.output:
        draw(run.samples, options.output.parent / plot)
        with replacing(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0 if all(verdict.passed for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
