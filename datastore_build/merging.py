"""Datastores into one, and one without its deleted entries. Nothing is embedded again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datastore_build.digests import DigestSet
from datastore_build.draft import open_draft
from datastore_build.engines.clear_failure import clear_failure
from datastore_build.engines.engine import Engine
from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import choose_index
from datastore_build.part import Part
from datastore_build.publish import publish
from datastore_build.report import BuildProgress
from datastore_build.sources.readers import unique_name
from datastore_build.version_vectors import JoinedVectors
from datastore_build.writer import CaptionsWriter, RejectsFile
from retrieval.errors import DatastoreError
from retrieval.manifest import VERSIONS, IndexRequest, SourceRecord

_SHOWN = 10


@dataclass(frozen=True)
class ChangeReport:
    """What a change of a datastore did. The JSON of `delete`, `compact` and `merge` is this."""

    version: str
    path: str  # of the version's folder
    reused: bool  # the same content was there already and was made live
    entries: int
    texts: int
    languages: dict[str, int]  # texts per language
    deleted: int  # entries that this run deleted or really removed
    missing: tuple[str, ...]  # ids to delete that no live entry has, the first few
    missing_count: int
    collisions: tuple[str, ...]  # ids that several datastores have, the first few
    collision_count: int
    seconds: float


def compact_datastore(
    datastore: Path,
    on_progress: Callable[[BuildProgress], None] | None = None,
    *,
    index: IndexRequest | None = None,
    engine: Engine | None = None,
) -> ChangeReport:
    """A version without what was deleted. Raises DatastoreError.

    index: what is asked of its index, by default the same as before. engine: what puts vectors into lists.
    Without deleted entries and with the
    same request the live version stays as it is.
    """
    started = time.monotonic()
    part = Part(datastore)
    if part.manifest.deleted is None and index in (None, part.manifest.index.asked):
        counts = part.manifest.counts
        return ChangeReport(
            version=part.manifest.version,
            path=str(part.folder),
            reused=True,
            entries=counts.entries,
            texts=counts.texts,
            languages=counts.languages,
            deleted=0,
            missing=(),
            missing_count=0,
            collisions=(),
            collision_count=0,
            seconds=round(time.monotonic() - started, 3),
        )
    return _join([part], datastore, index, engine, on_progress, started)


def merge_datastores(
    datastores: Sequence[Path],
    output: Path,
    on_progress: Callable[[BuildProgress], None] | None = None,
    *,
    index: IndexRequest | None = None,
    engine: Engine | None = None,
) -> ChangeReport:
    """A version of `output` with the live entries of several datastores, in their order.

    Of entries with one id the first is taken; the others are counted and named in rejects.jsonl. index: what
    is asked of the index, by default what was asked of the first datastore's. engine: what puts vectors into
    lists, by default this process. Raises DatastoreError: not of
    one embedder, damaged, no index fits, the output cannot be written.
    """
    started = time.monotonic()
    parts = [Part(datastore) for datastore in datastores]
    for part in parts[1:]:
        part.require_embedder(parts[0].manifest.embedder, parts[0].manifest.dimension)
    return _join(parts, output, index, engine, on_progress, started)


def _join(
    parts: Sequence[Part],
    output: Path,
    index: IndexRequest | None,
    engine: Engine | None,
    on_progress: Callable[[BuildProgress], None] | None,
    started: float,
) -> ChangeReport:
    names: set[str] = set()
    source_names: list[str] = []
    records: list[SourceRecord] = []
    offsets = []
    for part in parts:
        own = part.captions.source_names()
        renamed = {name: unique_name(name, names) for name in own}
        offsets.append(len(source_names))
        source_names += renamed.values()
        records += [
            record.model_copy(update={"name": renamed.get(record.name, record.name)})
            for record in part.manifest.sources
        ]
    total = sum(part.manifest.counts.entries for part in parts)

    def report(stage: str, fraction: float | None, done: int = total) -> None:
        if on_progress is not None:
            on_progress(BuildProgress(fraction, done, 0, 0, stage))

    collisions: list[str] = []
    collision_count = 0
    try:
        with open_draft(output, None, resume=False, clean=False) as (draft, _):
            vectors = []
            ids = DigestSet(draft.root)
            with RejectsFile(draft.folder) as rejects, CaptionsWriter(draft.folder, source_names) as writer:
                for part, offset in zip(parts, offsets, strict=True):
                    rejects.add_all_of(part.folder)
                    omitted = []
                    for number, entry in part.entries():
                        if ids.add(entry.id):
                            writer.add([entry.shifted(offset)])
                        else:
                            omitted.append(number)
                            collision_count += 1
                            collisions += [entry.id] if len(collisions) < _SHOWN else []
                            reason = f"an earlier datastore has an entry {entry.id!r} already"
                            rejects.add(str(part.datastore), number, reason)
                        if number % 4096 == 0:
                            report("merging", writer.entries / max(total, 1), writer.entries)
                    vectors.append(part.vectors(np.array(omitted, np.int64)))
                counts = writer.finish()
            joined = JoinedVectors(vectors)
            asked = index or parts[0].manifest.index.asked
            plan = choose_index(joined.count, joined.dimension, asked)
            if not all(part.readable_in_parts for part in parts):
                engine = None  # their vectors are read when all of an index is in memory: of one process
            with clear_failure("indexing"):
                settings = build_index(joined, plan, draft.folder, engine=engine, on_stage=report)
            manifest, reused = publish(
                output,
                draft.folder,
                embedder=parts[0].manifest.embedder,
                dimension=parts[0].manifest.dimension,
                index=settings,
                counts=counts,
                sources=records,
                replacing=parts[0].folder.name if output == parts[0].datastore else None,
            )
    except OSError as error:
        raise DatastoreError(
            f"cannot write the datastore {output}: {error.strerror or error}. Nothing was published"
        ) from None
    return ChangeReport(
        version=manifest.version,
        path=str(output / VERSIONS / manifest.version),
        reused=reused,
        entries=counts.entries,
        texts=counts.texts,
        languages=counts.languages,
        deleted=sum(len(part.deleted) for part in parts),
        missing=(),
        missing_count=0,
        collisions=tuple(collisions),
        collision_count=collision_count,
        seconds=round(time.monotonic() - started, 3),
    )
