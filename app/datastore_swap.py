"""Another version of the datastore takes the place of the present one while the service answers.

The new version is opened beside the old one, probed, and then the model is exchanged for one that has it and
shares all other parts. A batch is of one model, so no reply mixes versions; who has begun with the old one
ends with it, and its memory is free when the last of them is done. What cannot be served is refused, and the
old version goes on. Belongs to one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import structlog
from anyio import to_thread

from app.errors import DatastoreRefusedError
from app.model import CaptionModel
from app.model_holder import ModelHolder
from retrieval.activation import activate as make_live
from retrieval.errors import PaelleraError
from retrieval.manifest import live_version

_log = structlog.get_logger("paellera.service")


@dataclass(frozen=True)
class Swap:
    """Which version was served and which is now; the same where there was nothing to do."""

    previous: str
    version: str


class DatastoreSwap:
    """Args:
    holder: has the model.
    probe: raises if captions cannot be made with a model.
    on_swap: told the new model.
    count: told "served" or "refused" for every new version.
    """

    def __init__(
        self,
        holder: ModelHolder,
        probe: Callable[[CaptionModel], Awaitable[None]],
        on_swap: Callable[[CaptionModel], None],
        count: Callable[[str], None],
    ) -> None:
        self._holder = holder
        self._probe = probe
        self._on_swap = on_swap
        self._count = count
        self._lock = asyncio.Lock()  # one at a time: each takes the memory of an index
        self._refused: str | None = None  # the version, or what is wrong with CURRENT

    async def activate(self, version: str | None = None) -> Swap:
        """Serve a version, which becomes the datastore's live one; by default the one that is live.

        CURRENT is replaced only when the version has been found good. Raises DatastoreRefusedError, and what
        `holder.model` raises; the version served stays then.
        """
        async with self._lock, self._holder.model() as model:
            store = model.datastore
            if store.root is None:
                raise DatastoreRefusedError(
                    "this server was given the folder of a single version: give it the datastore's folder"
                )
            previous, root, wanted = store.version, store.root, version
            try:
                if wanted is None:
                    wanted = (await _live(root)).name
                if wanted != previous:
                    await self._exchange(model, wanted, None if version is None else root)
                elif version is not None:  # CURRENT may have been changed and not noticed yet
                    await _make_live(root, version)
            except PaelleraError as error:
                self._refuse(wanted or str(error), error)
                raise DatastoreRefusedError(str(error)) from None
            self._refused = None
            return Swap(previous, wanted)

    async def watch(self, seconds: float) -> None:
        """Looks for a new live version every so many seconds, for ever, and serves it."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._look()
            except Exception:  # whatever it is, the next look may be luckier
                _log.exception("datastore_watch_failed")

    async def _look(self) -> None:
        facts = self._holder.facts
        # A model that is away finds the live version by itself when it is loaded again.
        if facts is None or facts.datastore_root is None:
            return
        if not self._holder.loaded:
            return
        try:
            live = (await _live(facts.datastore_root)).name
        except PaelleraError as error:
            self._refuse(str(error), error)
            return
        if live == facts.datastore.version:
            self._refused = None
        elif live != self._refused:
            with suppress(PaelleraError):  # is in the log
                await self.activate()

    async def _exchange(self, model: CaptionModel, version: str, make_live_in: Path | None) -> None:
        """Opens and probes the version and puts it in place. Raises PaelleraError."""
        started = perf_counter()
        try:
            # On a thread of its own: requests go on while gigabytes are read, hashed and searched.
            new = await to_thread.run_sync(_open, model, version)
            await self._probe(new)
            if make_live_in is not None:
                await _make_live(make_live_in, version)
        except PaelleraError:
            raise
        except Exception as error:
            _log.exception("datastore_probe_failed", version=version)
            raise DatastoreRefusedError(f"captioning with version {version} fails: {error!r}") from None
        self._holder.replace(new)
        self._on_swap(new)
        self._count("served")
        seconds = round(perf_counter() - started, 3)
        _log.info("datastore_swapped", previous=model.datastore.version, version=version, seconds=seconds)

    def _refuse(self, what: str, error: PaelleraError) -> None:
        if what != self._refused:
            self._refused = what
            self._count("refused")
            _log.error("datastore_refused", code=error.code, detail=str(error))


def _open(model: CaptionModel, version: str) -> CaptionModel:
    """The model on another version, which finds its own entries. Raises DatastoreError."""
    new = model.on_version(version)
    new.datastore.check()
    return new


async def _live(root: Path) -> Path:
    # A disk of the network may hang; the service must stop all the same.
    return await to_thread.run_sync(live_version, root, abandon_on_cancel=True)


async def _make_live(root: Path, version: str) -> None:
    """Raises DatastoreRefusedError or DatastoreError."""
    try:
        await to_thread.run_sync(make_live, root, version)
    except OSError as error:
        raise DatastoreRefusedError(
            f"this server may not write {root} ({error.strerror or error}): make the version live with "
            "`paellera datastore activate` where that is possible"
        ) from None
