"""Entries out of a datastore, at once and without copying it: a version that says which of them are deleted.

Its files are those of the version before, by hard link, and deleted.npy. What is deleted stays in the files
until `compact`.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Set
from pathlib import Path

import numpy as np

from datastore_build.draft import open_draft
from datastore_build.merging import ChangeReport
from datastore_build.part import Part
from datastore_build.publish import publish
from retrieval.errors import DatastoreError
from retrieval.manifest import DELETED, VERSIONS, Counts, DeletedCounts

_SHOWN = 10


def delete_entries(datastore: Path, ids: Iterable[str]) -> ChangeReport:
    """A version without the entries of these ids. Ids that no live entry has are counted.

    Raises DatastoreError: no id is live, no entry would be left, the datastore cannot be written.
    """
    started = time.monotonic()
    wanted = set(ids)
    part = Part(datastore)
    numbers, found, languages = _find(part, wanted)
    missing = sorted(wanted - found)
    before = part.manifest.counts
    if not numbers:
        named = ", ".join(map(repr, missing[:3])) or "no id was given"
        raise DatastoreError(f"{datastore} has none of the entries to delete ({named}); nothing was changed")
    if len(numbers) == before.entries:
        raise DatastoreError(f"{datastore} would have no entry left; nothing was changed")
    counts = Counts(
        entries=before.entries - len(numbers),
        texts=before.texts - languages.total(),
        # Which of the repeated are left is not known until `compact` counts them.
        repeated_texts=min(before.repeated_texts, before.texts - languages.total()),
        languages={
            code: count - languages[code]
            for code, count in before.languages.items()
            if count > languages[code]
        },
    )
    earlier = part.manifest.deleted
    deleted = DeletedCounts(
        entries=len(numbers) + (earlier.entries if earlier else 0),
        texts=languages.total() + (earlier.texts if earlier else 0),
    )
    try:
        with open_draft(datastore, None, resume=False, clean=False) as (draft, _):
            for name in part.manifest.files:
                if name != DELETED:
                    _link(part.folder / name, draft.folder / name)
            with (draft.folder / DELETED).open("wb") as file:
                np.save(file, np.union1d(part.deleted, np.array(numbers, np.int64)), allow_pickle=False)
            manifest, reused = publish(
                datastore,
                draft.folder,
                embedder=part.manifest.embedder,
                dimension=part.manifest.dimension,
                index=part.manifest.index,
                counts=counts,
                sources=part.manifest.sources,
                deleted=deleted,
                replacing=part.folder.name,
            )
    except OSError as error:
        raise DatastoreError(
            f"cannot write the datastore {datastore}: {error.strerror or error}. Nothing was published"
        ) from None
    return ChangeReport(
        version=manifest.version,
        path=str(datastore / VERSIONS / manifest.version),
        reused=reused,
        entries=counts.entries,
        texts=counts.texts,
        languages=counts.languages,
        deleted=len(numbers),
        missing=tuple(missing[:_SHOWN]),
        missing_count=len(missing),
        collisions=(),
        collision_count=0,
        seconds=round(time.monotonic() - started, 3),
    )


def _find(part: Part, ids: Set[str]) -> tuple[list[int], set[str], Counter[str]]:
    """Numbers and ids of the live entries to delete, and their texts per language."""
    numbers, found, languages = [], set(), Counter[str]()
    for number, entry in part.entries():
        if entry.id in ids:
            numbers.append(number)
            found.add(entry.id)
            languages.update(text.language for text in entry.texts)
    return numbers, found, languages


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
