"""The work of a build on Ray: one actor for each processor or GPU of a cluster, or of this machine.

Plain actors instead of Ray Data: what travels is a task's number and its result's hash, for what is read and
written is in the datastore's folder, which all machines share. So there are no datasets to
stream, and a task that kills its worker again and again can end the build with an error; Ray Data tries it
for ever by default. docs/scale.md says how to run it.
"""

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic

from datastore_build.engines.engine import Engine, OnStep, Result, Task
from retrieval.errors import DatastoreError

_TRIES = 3  # of a task whose worker is lost
_PATIENCE = 600.0  # seconds until a worker must have begun; a cluster may have to start machines first
_REACHED_WITHIN = 10.0  # seconds
# Of a Ray that is started here. Little goes through its store: the embedder, once.
_OBJECT_STORE = 256 * 2**20

_Worker = Callable[[Task, OnStep], Result]
OnLost = Callable[[str], None]


@contextmanager
def ray_engine(
    address: str | None = None, workers: int | None = None, on_lost: OnLost | None = None
) -> Iterator[Engine]:
    """An engine on a Ray cluster; connected meanwhile, unless this process is already.

    address: of the cluster, HOST:PORT; by default what RAY_ADDRESS says, else a cluster that this machine
    belongs to, else one is started on this machine alone. workers: how many; by default one for each
    processor of the cluster, or for each GPU where these do the work and there are any. on_lost: told of each
    worker that is lost. Raises DatastoreError: Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    connected_before = ray.is_initialized()
    if not connected_before:
        _connect(ray, address)
    try:
        yield RayEngine(ray, workers, on_lost or _ignore)
    finally:
        if not connected_before:
            ray.shutdown()


class RayEngine:
    """Tasks to actors as these become free. A task whose actor is lost is done again by a new one."""

    def __init__(self, ray: Any, workers: int | None, on_lost: OnLost) -> None:
        self._ray = ray
        self._workers = workers
        self._on_lost = on_lost

    def run(
        self,
        open_worker: Callable[[], _Worker[Task, Result]],
        tasks: Sequence[Task],
        *,
        folder: Path,
        on_step: OnStep,
        task_name: str = "task",
        gpu: bool = False,
    ) -> Iterator[Result]:
        """See Engine. on_step is not called: no steps are heard of from another process."""
        if tasks:
            gpus = int(self._ray.cluster_resources().get("GPU", 0)) if gpu else 0
            crew: _Crew[Task, Result] = _Crew(
                self._ray,
                self._ray.put(open_worker),
                folder,
                self._count(gpus),
                task_name=task_name,
                gpus=min(gpus, 1),
                on_lost=self._on_lost,
            )
            try:
                yield from crew.run(tasks)
            finally:
                crew.dismiss()

    def _count(self, gpus: int) -> int:
        if self._workers is not None:
            return self._workers
        return max(gpus or int(self._ray.cluster_resources().get("CPU", 0)), 1)


class _Crew(Generic[Task, Result]):
    """The actors of one run."""

    def __init__(
        self,
        ray: Any,
        open_worker: Any,
        folder: Path,
        count: int,
        *,
        task_name: str,
        gpus: int,
        on_lost: OnLost,
    ) -> None:
        self._ray = ray
        self._open_worker = open_worker
        self._folder = folder
        self._count = count
        self._task_name = task_name
        self._on_lost = on_lost
        self._actor_class = ray.remote(num_cpus=1, num_gpus=gpus)(RayWorker)
        self._actors: list[Any] = []
        self._opening: dict[Any, Any] = {}  # reference of a result to come → its actor
        self._working: dict[Any, tuple[Any, Task]] = {}
        self._lost: Counter[Task | None] = Counter()  # how often; None: while it was opening

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        waiting = deque(tasks)
        for _ in range(min(self._count, len(tasks))):
            self._hire()
        while waiting or self._working:
            reference = self._next()
            opened = self._opening.pop(reference, None)
            actor, task = self._working.pop(reference, (opened, None))
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise self._cause(error) from None
            except self._ray.exceptions.RayError as error:
                self._ray.kill(actor)
                self._note_lost(task, error)
                if task is not None:
                    waiting.appendleft(task)
                self._hire()
                continue
            if opened is None:
                del self._lost[None]
                yield result
            if waiting:
                following = waiting.popleft()
                self._working[actor.do.remote(following)] = (actor, following)
            else:
                self._ray.kill(actor)

    def dismiss(self) -> None:
        """Ends every actor, at once."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _hire(self) -> None:
        actor = self._actor_class.remote()
        self._actors.append(actor)
        self._opening[actor.open.remote(self._open_worker, str(self._folder))] = actor

    def _next(self) -> Any:
        """The reference of the next result; DatastoreError if no worker begins."""
        references = [*self._working, *self._opening]
        ready, _ = self._ray.wait(references, timeout=None if self._working else _PATIENCE)
        if not ready:
            free = self._ray.available_resources()
            raise DatastoreError(
                f"no worker has begun within {_PATIENCE:.0f} s: the Ray cluster has "
                f"{free.get('CPU', 0):.0f} processors and {free.get('GPU', 0):.0f} GPUs free"
            )
        return ready[0]

    def _note_lost(self, task: Task | None, error: Exception) -> None:
        """Raises DatastoreError if that has happened too often."""
        self._lost[task] += 1
        reason = _on_one_line(error)
        if self._lost[task] >= (_TRIES if task is not None else _TRIES + self._count):
            what = f"at {self._task_name} {task}" if task is not None else "before it could begin"
            raise DatastoreError(f"{self._lost[task]} workers were lost {what}, the last one: {reason}")
        self._on_lost(f"a worker was lost, and what it was at is done again: {reason}")

    def _cause(self, error: Any) -> BaseException:
        """What a worker raised, as itself and not as what Ray makes of it."""
        cause: BaseException = error.cause
        if isinstance(cause, (ImportError, self._ray.exceptions.RayError)):
            reason = str(cause).partition("\n")[0]
            return DatastoreError(f"a worker lacks what this process has, the same paellera, say: {reason}")
        return cause


class RayWorker:
    """What an actor is: one of the engine's workers, on the machine where Ray puts it."""

    def __init__(self) -> None:
        self._work: Callable[[Any, OnStep], Any] | None = None

    def open(self, open_worker: Callable[[], Callable[[Any, OnStep], Any]], folder: str) -> None:
        """Raises DatastoreError if this machine does not see the folder."""
        if not Path(folder).is_dir():
            raise DatastoreError(
                f"the machine {socket.gethostname()} does not see {folder}: on several machines a datastore "
                "must be built in a folder that all of them share under one path"
            )
        self._work = open_worker()

    def do(self, task: Any) -> Any:
        if self._work is None:
            raise RuntimeError("open comes first")
        return self._work(task, _ignore)


def import_ray() -> Any:
    """The package, told to be quiet. Raises DatastoreError if it is not installed."""
    # Ray prints on standard output that a worker was lost, whatever `log_to_driver` says; JSON goes there.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of what is started here: it reports to nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    try:
        import ray
    except ImportError:
        raise DatastoreError("--engine ray needs the package ray: pip install 'paellera[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    _require_reachable(address or os.environ.get("RAY_ADDRESS") or "auto")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        try:
            ray.init(address, object_store_memory=_OBJECT_STORE, **quiet)
        except ValueError:  # there is a cluster already, whose store is not ours to size
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"connect to Ray at {address}" if address else "connect to Ray, or start it"
        raise DatastoreError(f"cannot {where}: {_on_one_line(error)}") from None


def _require_reachable(address: str) -> None:
    """Raises DatastoreError. Ray itself would try for minutes, and print what it tries."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or "/" in host:
        raise DatastoreError(
            f"{address} is not the address of a Ray cluster: HOST:PORT, such as 10.0.0.5:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise DatastoreError(f"cannot connect to Ray at {address}: {_on_one_line(error)}") from None


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _ignore(*_: object) -> None:
    pass
