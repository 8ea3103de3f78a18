"""Which entries say nearly the same as an earlier one, though in other words? Told by their vectors.

A build compares texts by their letters before any is embedded (search.py). What is worded otherwise
only the vectors can tell (earlier_entries.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from datastore_build.duplicates.earlier_entries import EarlierEntries
from retrieval.captions import CaptionText
from retrieval.datastore import Datastore


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
    earlier_entries = EarlierEntries(store, similarity)
    for entry, near, done in earlier_entries.near():
        texts = store.texts(entry) if near else []
        for earlier, cosine in near:
            pair = _same_language(texts, store.texts(earlier))
            if pair is not None:
                # What will be left out itself is no reason to leave out another.
                earlier_entries.give_up(entry)
                text, earlier_text = pair
                yield SimilarEntry(
                    entry=entry,
                    id=store.entry_id(entry),
                    earlier_id=store.entry_id(earlier),
                    similarity=round(cosine, 4),
                    language=text.language,
                    text=text.text,
                    earlier_text=earlier_text.text,
                )
                break
        on_progress(done)


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
