"""The runner: sources → rows → entries → vectors → files → published version.

It ties the steps together and counts; each step is a module of its own. Memory is bounded by one window of
entries, the vectors until they are indexed (4 · E bytes an entry) and the hashes that find repeats.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.entries import Entry, group_rows
from datastore_build.index_plan import IndexRequest
from datastore_build.publish import Draft
from datastore_build.readers import Source, open_sources
from datastore_build.report import BuildProgress, BuildReport, Tally
from datastore_build.rows import Reject, Row
from datastore_build.worker import EmbeddingWorker, TextEmbedder
from datastore_build.writer import RejectsFile, VersionWriter
from retrieval.errors import DatastoreError
from retrieval.languages import normalise
from retrieval.manifest import REJECTS, VERSIONS

_WINDOW = 512  # texts embedded at once: enough to sort by length, few enough for a lively progress bar

Window = list[Entry]
Worker = Callable[[Sequence[Entry]], npt.NDArray[np.float32]]


def build_datastore(
    sources: Sequence[Path],
    output: Path,
    embedder: TextEmbedder,
    *,
    language: str = "en",
    index: IndexRequest | None = None,
    strict: bool = False,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> BuildReport:
    """Builds a datastore version from `sources` and makes it the live version of `output`.

    language: of rows that name none. index: which kind, and what it may take; None lets the size decide.
    strict: any rejected row fails the build. Raises DatastoreError (a source cannot be read, no row is
    usable, no index fits, the output cannot be written, strict) and leaves the live version as it was.
    """
    started = time.monotonic()
    opened = open_sources(sources)
    tally = Tally(opened)
    names = [source.name for source in opened]
    try:
        with Draft(output) as draft:
            with (
                RejectsFile(draft.folder) as rejects,
                VersionWriter(draft.folder, embedder.dimension, names) as writer,
            ):
                rows = tally.count(_rows(opened, normalise(language)))
                entries = _sift(group_rows(rows, names), tally, rejects, strict=strict)
                for window, vectors in embed_locally(EmbeddingWorker(embedder), windows(entries)):
                    writer.add(window, vectors)
                    tally.texts += sum(len(entry.texts) for entry in window)
                    if on_progress is not None:
                        on_progress(tally.progress())
                counts, settings = writer.finish(index)
            tally.check(strict=strict, entries=counts.entries)
            manifest, reused = draft.publish(
                embedder=embedder.id,
                dimension=embedder.dimension,
                index=settings,
                counts=counts,
                sources=tally.source_records(),
            )
    except OSError as error:
        raise DatastoreError(
            f"cannot write the datastore {output}: {error.strerror or error}. Nothing was published"
        ) from None
    folder = output / VERSIONS / manifest.version
    return BuildReport(
        version=manifest.version,
        path=str(folder),
        reused=reused,
        embedder=manifest.embedder,
        index=manifest.index,
        entries=counts.entries,
        texts=counts.texts,
        languages=counts.languages,
        repeated_texts=counts.repeated_texts,
        rows=tally.total,
        published=tally.total - tally.rejected,
        rejected=tally.rejected,
        rejects_file=str(folder / REJECTS) if tally.rejected else None,
        rejects=tuple(tally.first_rejects),
        sources=tuple(record.model_dump() for record in tally.source_records()),
        seconds=round(time.monotonic() - started, 3),
    )


def embed_locally(
    worker: Worker, batches: Iterable[Window]
) -> Iterator[tuple[Window, npt.NDArray[np.float32]]]:
    """The local engine: one worker, one window after the other, in order."""
    for window in batches:
        yield window, worker(window)


def windows(entries: Iterable[Entry]) -> Iterator[Window]:
    """Entries in groups of about _WINDOW texts."""
    window: Window = []
    texts = 0
    for entry in entries:
        window.append(entry)
        texts += len(entry.texts)
        if texts >= _WINDOW:
            yield window
            window, texts = [], 0
    if window:
        yield window


def _rows(sources: Iterable[Source], language: str) -> Iterator[Row | Reject]:
    for source in sources:
        yield from source.rows(language)


def _sift(
    items: Iterable[Entry | Reject], tally: Tally, rejects: RejectsFile, *, strict: bool
) -> Iterator[Entry]:
    """The entries; what was rejected is written down.

    If a reject fails the build, no entry follows it, but the rows are read to the end, so that one run names
    every bad row.
    """
    for item in items:
        if isinstance(item, Reject):
            row = tally.reject(item)
            rejects.add(row.file, row.line, row.reason)
        elif not (strict and tally.rejected):
            yield item
