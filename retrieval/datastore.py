"""An opened datastore version: which captions are near this image, in this language?

It reads; making a version is datastore_build's work. It takes vectors, not images: an embedder makes those.
An opened version never changes and may be used from any number of threads.
"""

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.captions import CaptionTable, CaptionText
from retrieval.deleted import LiveIndex, read_deleted
from retrieval.errors import DatastoreError
from retrieval.gpu_search import Device
from retrieval.index import VectorIndex
from retrieval.manifest import (
    CAPTIONS,
    CURRENT,
    DELETED,
    INDEX,
    MANIFEST,
    Manifest,
    live_version,
    named_version,
    one_line,
    read_manifest,
    verify_files,
)
from retrieval.near_duplicates import NearDuplicateFilter
from retrieval.self_search import check_self_search
from retrieval.version_lock import while_opening

FALLBACK_LANGUAGE = "en"

# An entry without a text in the asked language counts as this much farther away (cosine): in a datastore of
# mixed languages one's own come first, but not what has nothing to do with the photo.
FOREIGN_PENALTY = 0.15

# How many entries are looked at for k neighbours: near duplicates and excluded entries drop out. If too many
# do, the query is searched again with more, up to the last number.
_OVERFETCH, _OVERFETCH_EXTRA, _MOST_FETCHED = 4, 8, 2048


_PROBED = 16  # entries that `check` searches for


@dataclass(frozen=True)
class Hit:
    """An entry near a query."""

    entry: int  # row of the index
    id: str
    score: float  # inner product with the query; cosine, as both are L2-normalised


@dataclass(frozen=True)
class Neighbour:
    """A retrieved caption. `language` differs from the one asked for where the entry has no text in it."""

    id: str
    text: str
    language: str
    score: float
    handicap: float = 0.0  # taken off the score where it is ranked

    @property
    def key(self) -> float:
        """What it is ranked by."""
        return self.score - self.handicap


class Datastore:
    """The captions and the index of one version."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        captions: CaptionTable,
        index: VectorIndex,
        root: Path | None = None,
        deleted: npt.NDArray[np.int64] | None = None,
        device: Device = "cpu",
    ) -> None:
        """deleted: the numbers of the entries that no search may find, sorted. device: what was asked for."""
        self.folder = folder  # of the version
        self.root = root  # the datastore that the version is one of; None: it was opened by itself
        self.manifest = manifest
        self.device = device
        self._captions = captions
        self._index = index if deleted is None else LiveIndex(index, deleted)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        embedder_id: str | None = None,
        dimension: int | None = None,
        version: str | None = None,
        device: Device = "cpu",
    ) -> "Datastore":
        """Opens the live version of a datastore, or the one named, or `folder` itself if it is a version's.

        Sizes and SHA-256 of every file are verified before any is parsed. `embedder_id` and `dimension` are
        those of the embedder that will make the queries. device: where the index is searched. Raises
        DatastoreError: nothing there, damaged, built with another embedder, or not to be searched there.
        """
        if version is not None:
            return cls._open(named_version(folder, version), folder, embedder_id, dimension, device)
        if (folder / MANIFEST).exists() and not (folder / CURRENT).exists():
            return cls._open(folder, None, embedder_id, dimension, device)
        live = live_version(folder)
        while True:
            try:
                return cls._open(live, folder, embedder_id, dimension, device)
            except DatastoreError:
                # It may have been replaced and removed since CURRENT was read.
                tried, live = live, live_version(folder)
                if live == tried:
                    raise

    @classmethod
    def _open(
        cls,
        version: Path,
        root: Path | None,
        embedder_id: str | None,
        dimension: int | None,
        device: Device,
    ) -> "Datastore":
        named = version if root is None else root
        again = "build it again with this bundle (`paellera datastore build`)"
        with while_opening(version):
            manifest = read_manifest(version)
            if root is not None and manifest.version != version.name:
                raise DatastoreError(
                    f"{version / MANIFEST} is that of version {one_line(manifest.version)}: the files of "
                    "versions were mixed up; build the datastore again"
                )
            if embedder_id is not None and manifest.embedder != embedder_id:
                raise DatastoreError(
                    f"the datastore {named} was built with the embedder {one_line(manifest.embedder)}, this "
                    f"bundle has {embedder_id}: {again}"
                )
            if dimension is not None and manifest.dimension != dimension:
                raise DatastoreError(
                    f"the datastore {named} has vectors of {manifest.dimension} dimensions, this bundle's "
                    f"have {dimension}: {again}"
                )
            verify_files(version, manifest)
            stored = manifest.stored_entries
            captions = CaptionTable.open(version / CAPTIONS, entries=stored, texts=manifest.stored_texts)
            index = VectorIndex.read(
                version / INDEX,
                dimension=manifest.dimension,
                entries=stored,
                settings=manifest.index,
                device=device,
            )
            deleted = None
            if manifest.deleted is not None:
                deleted = read_deleted(version / DELETED, entries=stored, deleted=manifest.deleted.entries)
        return cls(version, manifest, captions, index, root, deleted, device)

    def __len__(self) -> int:
        """The number of entries, without deleted ones."""
        return self._index.entries

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def dimension(self) -> int:
        return self._index.dimension

    @property
    def languages(self) -> dict[str, int]:
        """Texts per language."""
        return dict(self.manifest.counts.languages)

    def texts(self, entry: int) -> list[CaptionText]:
        """Every text of an entry. Raises IndexError."""
        return self._captions.texts(entry)

    def entry_id(self, entry: int) -> str:
        """The id of an entry. Raises IndexError."""
        return self._captions.entry_id(entry)

    @property
    def stored(self) -> int:
        """The number of entries in the files, deleted ones among them; their numbers are below it."""
        return self.manifest.stored_entries

    def live(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of these numbers that are not of deleted entries."""
        return self._index.live(entries) if isinstance(self._index, LiveIndex) else entries

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, E) of entries as the index keeps them. Each must be in [0, stored)."""
        return self._index.vectors(entries)

    def check(self) -> None:
        """Searches for a few entries' own vectors. Raises DatastoreError if it does not find them."""
        check_self_search(self, _PROBED)

    def search(self, queries: npt.NDArray[np.float32], k: int) -> list[list[Hit]]:
        """The k nearest entries of each query, best first, ties in the order of the datastore.

        `queries` is (B, E) float32, L2-normalised. Fewer than k if the datastore is smaller. Raises
        ValueError for queries of another shape or with values that are not finite.
        """
        scores, entries = self._search(queries, k)
        return [
            [
                Hit(entry, self._captions.entry_id(entry), score)
                for entry, score in zip(row.tolist(), row_scores.tolist(), strict=True)
            ]
            for row, row_scores in zip(entries, scores, strict=True)
        ]

    def neighbours(
        self,
        queries: npt.NDArray[np.float32],
        languages: Sequence[Sequence[str]],
        k: int,
        *,
        min_score: float = -1.0,
        exclude: Sequence[Set[str]] | None = None,
    ) -> list[list[list[Neighbour]]]:
        """Up to k captions near each query, for each of the languages asked for with it.

        queries: (B, E) float32, L2-normalised. languages: for each query a list of codes. min_score:
        neighbours below it are dropped. exclude: for each query the ids of entries that must not be used (in
        training, the photo's own captions).

        Entries are retrieved once per query and serve every language, as in PAELLA (Ramos et al. 2024): the
        text in that language is taken. An entry that has none is used, with its English text or else its
        first, where it is nearer by FOREIGN_PENALTY (the neighbour's `language` tells). Of texts that nearly
        equal each other the nearest is kept. Result: [query][language] → neighbours, best first. Raises
        ValueError for arguments of different lengths.
        """
        if any(isinstance(item, str) for item in languages):
            raise ValueError("languages holds a list of codes for each query, not one list of codes")
        excluded: Sequence[Set[str]] = [frozenset()] * len(queries) if exclude is None else exclude
        if not len(queries) == len(languages) == len(excluded):
            raise ValueError("queries, languages and exclude must have the same length")
        if k <= 0:
            return [[[] for _ in asked] for asked in languages]
        fetch = _OVERFETCH * k + _OVERFETCH_EXTRA + max(map(len, excluded), default=0)
        scores, entries = self._search(queries, fetch)
        results = []
        for query, asked in enumerate(languages):
            row_scores, row_entries, fetched = scores[query], entries[query], fetch
            while True:
                candidates = self._candidates(row_scores, row_entries, min_score, excluded[query])
                found = [self._select(candidates, language, k) for language in asked]
                exhausted = fetched >= min(len(self), _MOST_FETCHED) or row_scores[-1] < min_score
                if exhausted or all(self._complete(item, k, float(row_scores[-1])) for item in found):
                    break
                fetched = min(4 * fetched, _MOST_FETCHED)
                single_scores, single_entries = self._search(queries[query : query + 1], fetched)
                row_scores, row_entries = single_scores[0], single_entries[0]
            results.append(found)
        return results

    def _complete(self, found: Sequence[Neighbour], k: int, farthest: float) -> bool:
        """No entry beyond the farthest one fetched could still be among the k."""
        return len(found) == k and found[-1].key >= farthest

    def _search(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"queries must be (B, {self.dimension}), not {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("queries must be finite")
        return self._index.search(queries, k)

    def _candidates(
        self,
        scores: npt.NDArray[np.float32],
        entries: npt.NDArray[np.int64],
        min_score: float,
        excluded: Set[str],
    ) -> list[tuple[str, float, list[CaptionText]]]:
        """(id, score, texts) of the entries of one query that may be used, best first."""
        return [
            (entry_id, score, self._captions.texts(entry))
            for entry, score in zip(entries.tolist(), scores.tolist(), strict=True)
            if score >= min_score and (entry_id := self._captions.entry_id(entry)) not in excluded
        ]

    def _select(
        self, candidates: list[tuple[str, float, list[CaptionText]]], language: str, k: int
    ) -> list[Neighbour]:
        """The best k candidates, each in the language or its fallback, without near duplicates."""
        # Where no entry has the language, all would pay the penalty alike.
        penalty = FOREIGN_PENALTY if language in self.manifest.counts.languages else 0.0
        neighbours = []
        for entry_id, score, texts in candidates:
            by_language = {text.language: text for text in reversed(texts)}  # the first of a language wins
            own = by_language.get(language)
            text = own or by_language.get(FALLBACK_LANGUAGE) or texts[0]
            handicap = 0.0 if own else penalty
            neighbours.append(Neighbour(entry_id, text.text, text.language, score, handicap))
        neighbours.sort(key=lambda neighbour: neighbour.key, reverse=True)
        distinct = NearDuplicateFilter()
        admitted = (neighbour for neighbour in neighbours if distinct.admit(neighbour.text))
        return list(itertools.islice(admitted, k))
