"""The runner: sources → captions → vectors → index → published version.

It ties the stages together; each is a module of its own. Memory is bounded by one shard of vectors, whatever
the number of rows, but for the indexes that are not written block by block.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from datastore_build.build_state import (
    BuildPlan,
    NearDuplicateChoice,
    QualityFilters,
    Staged,
    identify,
)
from datastore_build.draft import Draft, open_draft
from datastore_build.embedding import ShardJob, embed_shards
from datastore_build.engines.clear_failure import clear_failure
from datastore_build.engines.engine import Engine, LocalEngine
from datastore_build.engines.worker import TextEmbedder
from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import IndexPlan, choose_index
from datastore_build.part import Part
from datastore_build.publish import publish
from datastore_build.report import BuildProgress, BuildReport
from datastore_build.shards import SHARD_ENTRIES, EmbeddingShards
from datastore_build.sources.caption_files import CaptionsFile
from datastore_build.sources.photo_match import PhotoMatch
from datastore_build.sources.readers import Source, open_sources
from datastore_build.staging import stage
from datastore_build.vectors import VectorSource
from datastore_build.version_vectors import JoinedVectors
from retrieval.errors import DatastoreError
from retrieval.languages import normalise
from retrieval.manifest import CAPTIONS, REJECTS, VERSIONS, IndexRequest, IndexSettings, describe_file

OnProgress = Callable[[BuildProgress], None]


def build_datastore(
    sources: Sequence[Path],
    output: Path,
    embedder: TextEmbedder,
    *,
    language: str = "en",
    index: IndexRequest | None = None,
    strict: bool = False,
    filters: QualityFilters | None = None,
    near_duplicates: NearDuplicateChoice = "report",
    match: PhotoMatch | None = None,
    resume: bool = False,
    base: Part | None = None,
    shard_entries: int = SHARD_ENTRIES,
    engine: Engine | None = None,
    on_progress: OnProgress | None = None,
) -> BuildReport:
    """Builds a datastore version from `sources` and makes it the live version of `output`.

    language: of rows that name none. index: which kind, and what it may take; None lets the size decide, or
    asks what was asked for `base`. strict: any row that cannot be used fails the build. filters: which texts
    are left out. match: judges the photos that rows name, for filters.min_match. resume: goes on with the
    build of the same sources and options that died, if there is one. base: the version that the entries are
    added to. engine: what embeds and puts vectors into lists; by default this process. Raises DatastoreError
    (a source cannot be read, no row is usable, no index fits, the output cannot be written, strict, what died
    was another build, there are no workers) and leaves the live version as it was.
    """
    started = time.monotonic()
    opened = open_sources(sources, base.captions.source_names() if base else ())
    if filters is not None and filters.min_match is not None and match is None:
        raise ValueError("min_match needs a PhotoMatch")
    if base is not None:
        base.require_embedder(embedder.id, embedder.dimension)
    plan = BuildPlan(
        sources=tuple(identify(path) for path in sources),
        base=base.manifest.content_sha256 if base else None,
        embedder=embedder.id,
        dimension=embedder.dimension,
        language=normalise(language),
        index=index or (base.manifest.index.asked if base else IndexRequest()),
        strict=strict,
        filters=filters or QualityFilters(),
        near_duplicates=near_duplicates,
        shard_entries=shard_entries,
    )
    report = on_progress or _quiet
    draft: Draft | None = None
    try:
        with open_draft(output, plan, resume=resume) as (draft, removed):
            resumed = draft.state.staged is not None or draft.holds_vectors
            staged = _stage(draft, opened, base, plan, report, match)
            index_plan = choose_index(staged.counts.entries, embedder.dimension, plan.index)
            shards, embedded = _embed(draft, staged, plan, embedder, engine or LocalEngine(), report)
            # Of the version that is added to, whole lists or a graph are read in the memory of one process.
            adding = engine if engine and (base is None or base.readable_in_parts) else LocalEngine()
            vectors: VectorSource = shards if base is None else JoinedVectors([base.vectors(), shards])
            settings = _index(draft, vectors, index_plan, staged, adding, report)
            manifest, reused = publish(
                output,
                draft.folder,
                embedder=embedder.id,
                dimension=embedder.dimension,
                index=settings,
                counts=staged.counts,
                sources=staged.source_records,
                replacing=None if base is None else base.folder.name,
            )
    except OSError as error:
        kept = _kept(draft) if draft and draft.root.exists() else ""
        raise DatastoreError(
            f"cannot write the datastore {output}: {error.strerror or error}. Nothing was published{kept}"
        ) from None
    folder = output / VERSIONS / manifest.version
    return BuildReport(
        version=manifest.version,
        path=str(folder),
        reused=reused,
        embedder=manifest.embedder,
        index=manifest.index,
        entries=manifest.counts.entries,
        texts=manifest.counts.texts,
        languages=manifest.counts.languages,
        repeated_texts=manifest.counts.repeated_texts,
        rows=staged.rows,
        published=staged.rows - staged.rejected,
        rejected=staged.rejected,
        rejects_file=str(folder / REJECTS) if REJECTS in manifest.files else None,
        rejects=staged.first_rejects,
        dropped=staged.dropped,
        near_duplicates=staged.near_duplicates,
        embedded=embedded,
        resumed=resumed,
        removed=tuple(removed),
        sources=tuple(record.model_dump() for record in staged.source_records),
        seconds=round(time.monotonic() - started, 3),
    )


def add_to_datastore(
    sources: Sequence[Path],
    datastore: Path,
    embedder: TextEmbedder,
    *,
    language: str = "en",
    index: IndexRequest | None = None,
    strict: bool = False,
    filters: QualityFilters | None = None,
    near_duplicates: NearDuplicateChoice = "report",
    match: PhotoMatch | None = None,
    resume: bool = False,
    shard_entries: int = SHARD_ENTRIES,
    engine: Engine | None = None,
    on_progress: OnProgress | None = None,
) -> BuildReport:
    """A version with the live entries of the datastore and those of `sources`; only these are embedded.

    An id that is live already is a rejected row. Otherwise as `build_datastore`. Raises DatastoreError, also
    if the datastore is of another embedder or another version became live meanwhile.
    """
    return build_datastore(
        sources,
        datastore,
        embedder,
        language=language,
        index=index,
        strict=strict,
        filters=filters,
        near_duplicates=near_duplicates,
        match=match,
        resume=resume,
        base=Part(datastore),
        shard_entries=shard_entries,
        engine=engine,
        on_progress=on_progress,
    )


def _stage(
    draft: Draft,
    sources: Sequence[Source],
    base: Part | None,
    plan: BuildPlan,
    report: OnProgress,
    match: PhotoMatch | None,
) -> Staged:
    """What was staged before, if it is complete and undamaged; else the stage anew."""
    before = draft.state.staged
    if before is not None:
        try:
            if all(describe_file(draft.folder / name) == record for name, record in before.files.items()):
                for path in draft.folder.iterdir():
                    if path.name not in before.files:
                        path.unlink()  # half an index
                return before
        except OSError:
            pass
    shutil.rmtree(draft.folder, ignore_errors=True)
    draft.folder.mkdir()
    work = draft.root / "work"
    staged = stage(draft.folder, work, sources, base, plan, report, match)
    shutil.rmtree(work, ignore_errors=True)
    if before is not None and before.files != staged.files:
        raise DatastoreError("the sources hold other rows than when the build began: leave out --resume")
    draft.save_state(draft.state.model_copy(update={"staged": staged}))
    return staged


def _embed(
    draft: Draft,
    staged: Staged,
    plan: BuildPlan,
    embedder: TextEmbedder,
    engine: Engine,
    report: OnProgress,
) -> tuple[EmbeddingShards, int]:
    count = staged.counts.entries - staged.base_entries
    # Whole paths: a worker on another machine has another working folder.
    shards = EmbeddingShards(draft.shards.resolve(), count, embedder.dimension, plan.shard_entries)
    captions = CaptionsFile(draft.folder.resolve() / CAPTIONS)

    def on_entries(done: int, texts: int) -> None:
        report(BuildProgress(done / max(count, 1), staged.rows, texts, staged.rejected))

    job = ShardJob(shards, captions, staged.base_entries, embedder)
    if draft.lists.exists() and shards.missing():
        shutil.rmtree(draft.lists)  # some of its vectors are to be embedded anew
    with clear_failure("embedding", lambda: _kept(draft)):
        embedded = embed_shards(job, engine, on_entries)
    return shards, embedded


def _index(
    draft: Draft,
    vectors: VectorSource,
    plan: IndexPlan,
    staged: Staged,
    engine: Engine,
    report: OnProgress,
) -> IndexSettings:
    def on_stage(stage: str, fraction: float | None) -> None:
        report(BuildProgress(fraction, staged.rows, staged.counts.texts, staged.rejected, stage))

    with clear_failure("indexing", lambda: _kept(draft)):
        return build_index(vectors, plan, draft.folder, engine=engine, work=draft.lists, on_stage=on_stage)


def _kept(draft: Draft) -> str:
    return ", and what is embedded is kept: --resume goes on" if draft.holds_vectors else ""


def _quiet(progress: BuildProgress) -> None:
    pass
