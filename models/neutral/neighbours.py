"""Neighbours for a caption without gendered words: what stands in the prompt leads what is written."""

from collections.abc import Sequence

from models.neutral.lexicon import load_lexicons
from retrieval.datastore import Neighbour


def neutral_first(neighbours: Sequence[Neighbour], least: float) -> list[Neighbour]:
    """Those without gendered words before the others, else in their order.

    Those with a score under `least` stay last, because they are not read.
    """
    return sorted(neighbours, key=lambda one: (one.score < least, _is_gendered(one)))


def _is_gendered(neighbour: Neighbour) -> bool:
    lexicon = load_lexicons().get(neighbour.language)
    return lexicon is not None and bool(lexicon.gendered_in(neighbour.text))
