"""The model in memory: loaded once for all who ask, dropped after a time without use, loaded again on demand.

Belongs to one event loop. What is asked of a model without running it (its languages, its names) is kept
while it is away.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

import structlog
from anyio import to_thread

from app.model import CaptionModel, TokenCounter
from retrieval.errors import PaelleraError
from retrieval.manifest import Manifest

_log = structlog.get_logger("paellera.service")


@dataclass(frozen=True)
class ModelFacts:
    """What there is to know of a model that may be away."""

    bundle_name: str
    revision: str
    languages: tuple[str, ...]
    datastore: Manifest
    datastore_root: Path | None  # where its versions are; None: there are no others
    count_tokens: TokenCounter

    @classmethod
    def of(cls, model: CaptionModel) -> "ModelFacts":
        store = model.datastore
        return cls(
            model.bundle_name,
            model.revision,
            model.languages,
            store.manifest,
            store.root,
            model.count_tokens,
        )


class ModelHolder:
    """`load` makes a model that is fit for use. With `idle_seconds` 0 it is kept for ever.

    `run` calls `load` on another thread: it had better be the one the model will be used on. OpenMP makes
    a pool of threads for each thread that computes, and with more threads than processors all are slow.

    Loading and dropping belong to no request: they have a context of their own, so that the log does not
    write them under the id of the request that happened to come before.
    """

    def __init__(
        self,
        load: Callable[[], CaptionModel],
        idle_seconds: float,
        run: Callable[[Callable[[], CaptionModel]], Awaitable[CaptionModel]] = to_thread.run_sync,
    ) -> None:
        self.facts: ModelFacts | None = None  # None until it was loaded for the first time
        self.failed = False  # the last attempt to load it
        self._load = load
        self._run = run
        self._idle_seconds = idle_seconds
        self._model: CaptionModel | None = None
        self._loading: asyncio.Task[None] | None = None
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of them

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @asynccontextmanager
    async def model(self) -> AsyncIterator[CaptionModel]:
        """The model, which stays while it is used. If it must be loaded, waits, and raises what that raises.

        Who is cancelled while waiting, as by a deadline, does not stop the loading for the others.
        """
        self._users += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._model is None:
                await asyncio.shield(self._begin_loading())
            assert self._model is not None  # nobody drops it while it has users
            yield self._model
        finally:
            self._users -= 1
            self._rest()

    def replace(self, model: CaptionModel) -> None:
        """From now on `model` is the model. Who uses the one before keeps it; with the last one it goes.

        To be called by who uses the one before: it is there then, and no other is being loaded.
        """
        assert self._users
        self.facts, self._model = ModelFacts.of(model), model

    def _begin_loading(self) -> asyncio.Task[None]:
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_once(), context=Context())
            # If nobody is left to take the error it is not lost: it was logged, and `failed` says so.
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._loading

    async def _load_once(self) -> None:
        started = time.perf_counter()
        try:
            model = await self._run(self._load)
        except Exception as error:
            self.failed = True
            if isinstance(error, PaelleraError):
                _log.error("model_not_loaded", code=error.code, detail=str(error))
            else:
                _log.exception("model_not_loaded")
            raise
        finally:
            self._loading = None
        self.facts = ModelFacts.of(model)
        self._model, self.failed = model, False
        _log.info(
            "model_ready",
            bundle=model.bundle_name,
            revision=model.revision,
            languages=len(model.languages),
            seconds=round(time.perf_counter() - started, 1),
        )
        self._rest()  # whoever asked for it may have been cancelled

    def _rest(self) -> None:
        """Begins to wait for the model to be dropped, if it is there and nobody uses it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._idle_seconds and self._model is not None and not self._users:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle_seconds, self._unload, context=Context())

    def _unload(self) -> None:
        if self._users:  # came in the same turn of the loop
            return
        self._model = None
        task = asyncio.create_task(to_thread.run_sync(_give_back_memory))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        _log.info("model_unloaded", idle_seconds=self._idle_seconds)


def _give_back_memory() -> None:
    """Frees what only cycles hold, then asks malloc to return free pages to the system (glibc can)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
