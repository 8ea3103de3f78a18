import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.near_duplicates import NearDuplicateFilter, fold


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A man rides a horse.", "a man rides a horse"),
        ("A man rides a horse on the beach", "A man rides a horse on the beach."),
        ("Two dogs are playing in the deep snow today", "Two dogs playing in the deep snow today"),
        ("一只黑猫坐在窗台上看着外面的花园。", "一只黑猫坐在窗台上看着外面的花园"),
        ("!?", "!?"),
    ],
)
def test_near_duplicates_are_found(first: str, second: str) -> None:
    distinct = NearDuplicateFilter()
    assert distinct.admit(first)
    assert not distinct.admit(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A black cat", "A black car"),
        ("A man rides a horse", "A woman rides a bike"),
        ("一只猫", "一只狗"),
        ("एक बिल्ली सो रही है", "एक कुत्ता सो रहा है"),
        ("قطة سوداء", "سيارة سوداء"),
        ("!?", "…"),
    ],
)
def test_different_captions_stay(first: str, second: str) -> None:
    distinct = NearDuplicateFilter()
    assert distinct.admit(first)
    assert distinct.admit(second)


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_ascii_is_folded_as_everything_else_is(text: str) -> None:
    # The letter at the end, which is not ASCII, makes it go the other way.
    assert fold(f"{text} é") == f"{fold(f'{text} e')[:-2]}é "
