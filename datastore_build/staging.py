"""The first stage of a build: sources → rows → entries → captions.arrow, complete before any is embedded.

So the slow stage that follows knows how much there is to do, can be taken up anywhere, and needs none of the
hashes that find what repeats.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from struct import Struct

from datastore_build.build_state import BuildPlan, Staged
from datastore_build.digests import DigestSet
from datastore_build.duplicates.search import DuplicateSearch, find_near_duplicates
from datastore_build.mapped_captions import MappedCaptions
from datastore_build.part import Part
from datastore_build.report import BuildProgress, NearDuplicates, Tally
from datastore_build.sources.caption_files import CaptionsFile
from datastore_build.sources.entries import Entry, group_rows
from datastore_build.sources.filters import filter_texts
from datastore_build.sources.photo_match import PhotoMatch
from datastore_build.sources.readers import Source
from datastore_build.sources.rows import Reject, Row
from datastore_build.writer import CaptionsWriter, RejectsFile
from retrieval.disk import sync
from retrieval.manifest import CAPTIONS, Counts, describe_file

_STEP = 512  # entries between two reports of progress
_LINE = Struct("<3q")  # entry, source, line

OnProgress = Callable[[BuildProgress], None]


def stage(
    folder: Path,
    work: Path,
    sources: Sequence[Source],
    base: Part | None,
    plan: BuildPlan,
    report: OnProgress,
    match: PhotoMatch | None = None,
) -> Staged:
    """Writes captions.arrow and rejects.jsonl into `folder`, to the disk.

    base: the version that is added to; its live entries come first. work: for temporary files. match: judges
    photos, where the plan asks for it. Raises RejectedRowsError, DatastoreError (a source cannot be read) and
    OSError.
    """
    tally = Tally(sources)
    own_names = [source.name for source in sources]
    base_names = base.captions.source_names() if base is not None else []
    names = [*base_names, *own_names]
    work.mkdir(parents=True, exist_ok=True)
    ids = DigestSet(work)
    with RejectsFile(folder) as rejects, CaptionsWriter(folder, names) as writer:
        if base is not None:
            rejects.add_all_of(base.folder)
            writer.add(entry for _, entry in base.entries() if ids.add(entry.id))
        base_entries = writer.entries
        items = filter_texts(tally.count(_rows(sources, plan.language)), plan.filters)
        if match is not None and plan.filters.min_match is not None:
            items = match.filter(items, [source.path for source in sources], plan.filters.min_match)
        entries = _sift(group_rows(items, own_names, ids), tally, rejects, strict=plan.strict)
        if plan.near_duplicates == "drop":
            entries = _with_lines(entries, base_entries, work / "lines.i64")
        shifted = (entry.shifted(len(base_names)) for entry in entries)
        while window := list(islice(shifted, _STEP)):
            writer.add(window)
            report(tally.progress())
        counts = writer.finish()
        del ids, entries, items, shifted
        tally.check(strict=plan.strict, entries=counts.entries - base_entries)
        near_duplicates = None
        if plan.near_duplicates != "keep":

            def compared(fraction: float) -> None:
                report(BuildProgress(fraction, tally.total, 0, tally.rejected, "comparing"))

            found = find_near_duplicates(folder / CAPTIONS, work, base_entries, compared)
            dropped = plan.near_duplicates == "drop"
            if dropped and found.entries:
                _reject_duplicates(found, folder, work / "lines.i64", tally, rejects)
                counts = _without(found, folder, names)
            near_duplicates = NearDuplicates(
                texts=found.texts.total(),
                languages=dict(sorted(found.texts.items())),
                entries=len(found.entries),
                dropped=dropped,
                first=tuple(found.first),
            )
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = describe_file(path)
    return Staged(
        counts=counts,
        base_entries=base_entries,
        source_records=(*(base.manifest.sources if base else ()), *tally.source_records()),
        rows=tally.total,
        rejected=tally.rejected,
        first_rejects=tuple(tally.first_rejects),
        dropped=dict(sorted(tally.dropped.items())),
        near_duplicates=near_duplicates,
        files=files,
    )


def _rows(sources: Iterable[Source], language: str) -> Iterator[Row | Reject]:
    return chain.from_iterable(source.rows(language) for source in sources)


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
        elif not (strict and tally.unusable):
            yield item


def _with_lines(entries: Iterable[Entry], first: int, path: Path) -> Iterator[Entry]:
    """The same entries; the rows that each was made of go to a file, as (entry, source, line)."""
    with path.open("wb") as file:
        for number, entry in enumerate(entries, start=first):
            for source, line in entry.rows:
                file.write(_LINE.pack(number, source, line))
            yield entry


def _lines(path: Path) -> Iterator[tuple[int, int, int]]:
    """(entry, source, line), in the order of the entries."""
    with path.open("rb") as file:
        while content := file.read(_STEP * _LINE.size):
            yield from _LINE.iter_unpack(content)


def _reject_duplicates(
    found: DuplicateSearch, folder: Path, lines: Path, tally: Tally, rejects: RejectsFile
) -> None:
    """Writes down every row of the entries that are left out."""
    made_of = groupby(_lines(lines), key=itemgetter(0))
    with MappedCaptions(folder / CAPTIONS) as captions:
        for duplicate in found.entries:
            reason = f"nearly the same as the entry {captions.value('entry_id', duplicate.earlier_row)!r}"
            rows = next(list(rows) for entry, rows in made_of if entry == duplicate.entry)
            for _, source, line in rows:
                row = tally.reject(Reject(source, line, reason, kind="near_duplicate"))
                rejects.add(row.file, row.line, row.reason)
            tally.dropped["near_duplicate"] += duplicate.texts - len(rows)  # a row may have several


def _without(found: DuplicateSearch, folder: Path, names: Sequence[str]) -> Counts:
    """Writes captions.arrow anew without the duplicates."""
    whole = (folder / CAPTIONS).rename(folder / f"{CAPTIONS}.whole")
    with CaptionsWriter(folder, names) as writer:
        entries = CaptionsFile(whole).read()
        writer.add(entry for number, entry in enumerate(entries) if number not in found.entries)
        counts = writer.finish()
    whole.unlink()
    return counts
