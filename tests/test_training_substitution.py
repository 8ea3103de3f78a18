import random

import pytest

from models.bundle import default_bundle
from models.language.tokenizer import Tokenizer
from training.substitution import WordSubstitution

TEXTS = [
    f"A {colour} {thing} in the park."
    for colour in ("red", "blue", "old")
    for thing in ("dog", "boat", "bike")
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


def test_a_shared_word_is_replaced_on_both_sides(tokenizer: Tokenizer) -> None:
    ids = {"en": {"photo": tokenizer.encode(TEXTS)}}
    substitution = WordSubstitution(ids, tokenizer, frequent=5, least=1)
    learnt, neighbours = (
        tokenizer.encode(["A red dog in the park."]),
        tokenizer.encode(["A red boat.", "An old dog."]),
    )
    changed = 0
    for seed in range(30):
        new_learnt, new_neighbours = substitution.apply("en", learnt, neighbours, random.Random(seed))
        assert list(map(len, new_learnt)) == list(map(len, learnt))
        before = [token for caption in [*learnt, *neighbours] for token in caption]
        after = [token for caption in [*new_learnt, *new_neighbours] for token in caption]
        mapping: dict[int, set[int]] = {}
        for old, new in zip(before, after, strict=True):
            mapping.setdefault(old, set()).add(new)
        replaced = {old for old, new in mapping.items() if new != {old}}
        assert all(len(new) == 1 for new in mapping.values())  # the same everywhere
        assert len(replaced) <= 2
        in_learnt = {token for caption in learnt for token in caption}
        in_neighbours = {token for caption in neighbours for token in caption}
        assert replaced <= in_learnt & in_neighbours
        changed += bool(replaced)
    assert changed > 15


def test_without_neighbours_nothing_changes(tokenizer: Tokenizer) -> None:
    substitution = WordSubstitution(
        {"en": {"photo": tokenizer.encode(TEXTS)}}, tokenizer, frequent=5, least=1
    )
    learnt = tokenizer.encode(TEXTS[:2])
    assert substitution.apply("en", learnt, [], random.Random(0)) == (learnt, [])
