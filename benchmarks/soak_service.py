"""`paellera serve` as a process, and what it takes of the machine while it is watched."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import status_bytes
from benchmarks.wire import ask, get

_STARTUP_SECONDS = 180
_MEGABYTE = 1e6
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Sample:
    """One look at the service. Memory is what a process has written itself (anonymous pages).

    Pages of libraries and files would go up and down with whatever else on the machine uses them.
    """

    seconds: float  # since the first one
    service_mb: float
    resident_mb: float  # of the service, as `ps` shows it
    decoders_mb: float
    decoders: int
    descriptors: int
    threads: int
    waiting: float
    under_way: float
    connections: float


@dataclass
class Service:
    """A running one."""

    host: str
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    async def sample(self, began: float) -> Sample:
        parent = psutil.Process(self.process.pid)
        metrics = await self.metrics()
        workers = []
        for child in parent.children(recursive=True):
            with suppress(OSError):  # it has ended meanwhile
                workers.append(status_bytes("RssAnon", child.pid))
        return Sample(
            seconds=time.monotonic() - began,
            service_mb=status_bytes("RssAnon", parent.pid) / _MEGABYTE,
            resident_mb=parent.memory_info().rss / _MEGABYTE,
            decoders_mb=sum(workers) / _MEGABYTE,
            decoders=len(workers),
            descriptors=parent.num_fds(),
            threads=parent.num_threads(),
            waiting=metrics["paellera_queue_depth"],
            under_way=metrics["paellera_requests_under_way"],
            connections=metrics["paellera_connections"] - 1,  # this one
        )

    async def metrics(self) -> dict[str, float]:
        """By name and labels, as they are written."""
        response = await ask(self.host, self.port, get("/metrics"))
        lines = [line for line in response.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    async def at_rest(self, seconds: float) -> bool:
        """Waits for the last of what is under way; whether it came to an end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            metrics = await self.metrics()
            if (
                metrics["paellera_queue_depth"] == metrics["paellera_requests_under_way"] == 0
                and metrics["paellera_connections"] <= 1
            ):
                return True
            await asyncio.sleep(0.5)
        return False

    def kill_decoder(self, draw: random.Random) -> None:
        """SIGKILL for one of the processes that decode images, whatever it is doing."""
        workers = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has ended meanwhile
                if "spawn_main" in " ".join(child.cmdline()):
                    workers.append(child)
        if workers:
            draw.choice(workers).kill()

    def log_lines(self, *levels: str) -> list[dict[str, Any]]:
        """Of the log so far; what is not JSON, such as a library's own words, counts as an error."""
        lines = []
        for text in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                line = {"level": "error", "event": text}
            if line.get("level") in levels and "Paellera listens" not in str(line["event"]):
                lines.append(line)
        return lines

    def stop(self) -> int:
        """The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def serving(log: Path, settings: Mapping[str, object]) -> Iterator[Service]:
    """The service, ready to caption; it is killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAELLERA_")}
    environment |= {"PYTHONPATH": str(ROOT), "PAELLERA_LOG_FORMAT": "json", "PAELLERA_PORT": "0"}
    environment |= {f"PAELLERA_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "app.cli", "serve"]
    with log.open("wb") as stream, subprocess.Popen(command, env=environment, stderr=stream) as process:
        try:
            yield _ready(process, log)
        finally:
            process.kill()


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> Service:
    end = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        text = log.read_text(encoding="utf-8", errors="replace")
        if "listens on" in text and "model_ready" in text:
            address = text.partition("listens on http://")[2].split()[0]
            host, _, port = address.rpartition(":")
            return Service(host, int(port), process, log)
        time.sleep(0.2)
    raise RuntimeError(f"the service did not become ready: {log.read_text(errors='replace')[-2000:]}")
