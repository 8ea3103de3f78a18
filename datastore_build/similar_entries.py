"""Which entries say nearly the same as an earlier one, though in other words? Told by their vectors.

A build compares texts by their letters before any is embedded (duplicate_search.py). What is worded otherwise
only the vectors can tell, so here every entry of a datastore is searched for in its own index: exact search
takes the square of their number, an approximate index hardly more than its own building did.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from retrieval.captions import CaptionText
from retrieval.datastore import Datastore

NEIGHBOURS = 10  # looked at for each entry
_QUERIES = 256  # searched for at once


@dataclass(frozen=True)
class SimilarEntry:
    """An entry that is nearly the same as an earlier one that is none itself."""

    entry: int
    id: str
    earlier_id: str
    similarity: float  # cosine of the two vectors
    language: str  # the first one that both have
    text: str
    earlier_text: str


def find_similar_entries(
    store: Datastore, similarity: float, on_progress: Callable[[float], None] = lambda fraction: None
) -> Iterator[SimilarEntry]:
    """The entries whose vectors have at least this cosine with an earlier entry's, in their order.

    Entries without a common language are not compared: translations of one caption are no duplicates. Of
    many entries that are all alike the first is not among those found, so that deleting these keeps it.
    """
    found = np.zeros(-(-store.stored // 8), np.uint8)  # a bit for each entry
    for start in range(0, store.stored, _QUERIES):
        entries = store.live(np.arange(start, min(start + _QUERIES, store.stored), dtype=np.int64))
        if len(entries):
            for entry, hits in zip(
                entries.tolist(), store.search(store.vectors(entries), NEIGHBOURS), strict=True
            ):
                texts = store.texts(entry)
                for hit in hits:
                    if hit.score < similarity:
                        break
                    # What will be left out itself is no reason to leave out another.
                    if hit.entry >= entry or found[hit.entry >> 3] >> (hit.entry & 7) & 1:
                        continue
                    pair = _same_language(texts, store.texts(hit.entry))
                    if pair is not None:
                        found[entry >> 3] |= 1 << (entry & 7)
                        text, earlier = pair
                        yield SimilarEntry(
                            entry=entry,
                            id=store.entry_id(entry),
                            earlier_id=hit.id,
                            similarity=round(hit.score, 4),
                            language=text.language,
                            text=text.text,
                            earlier_text=earlier.text,
                        )
                        break
        on_progress(min((start + _QUERIES) / store.stored, 1.0))


@dataclass
class SimilarSummary:
    """The JSON of `duplicates --json` is this."""

    version: str
    entries: int  # that were compared
    similarity: float
    found: int
    languages: dict[str, int]
    first: tuple[SimilarEntry, ...]


def summarise(
    store: Datastore,
    similarity: float,
    shown: int,
    on_found: Callable[[SimilarEntry], None],
    on_progress: Callable[[float], None],
) -> SimilarSummary:
    """Tells `on_found` every similar entry; counts them and keeps the first few."""
    languages: Counter[str] = Counter()
    first: list[SimilarEntry] = []
    for similar in find_similar_entries(store, similarity, on_progress):
        languages[similar.language] += 1
        on_found(similar)
        if len(first) < shown:
            first.append(similar)
    return SimilarSummary(
        version=store.version,
        entries=len(store),
        similarity=similarity,
        found=languages.total(),
        languages=dict(sorted(languages.items())),
        first=tuple(first),
    )


def _same_language(
    texts: list[CaptionText], earlier: list[CaptionText]
) -> tuple[CaptionText, CaptionText] | None:
    """A text of each in the first language that both have."""
    for text in texts:
        for other in earlier:
            if other.language == text.language:
                return text, other
    return None
