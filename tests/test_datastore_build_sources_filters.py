import pytest

from datastore_build.build_state import QualityFilters
from datastore_build.sources.filters import filter_texts
from datastore_build.sources.rows import Reject, Row


def _row(**texts: str) -> Row:
    return Row(0, 1, "x", tuple(texts.items()))


def _filter(row: Row, **limits: int | bool) -> tuple[list[str], list[tuple[str, str, bool]]]:
    """Languages that pass, and (kind, reason, whole row) of what does not."""
    items = list(filter_texts([row], QualityFilters.model_validate(limits)))
    passed = [language for item in items if isinstance(item, Row) for language, _ in item.texts]
    rejects = [(item.kind, item.reason, item.whole_row) for item in items if isinstance(item, Reject)]
    return passed, rejects


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_words": 4}, "too_short: the text in en has 3 words, fewer than 4"),
        ({"max_words": 2}, "too_long: the text in en has 3 words, more than 2"),
        ({"min_characters": 12}, "too_short: the text in en has 11 characters, fewer than 12"),
        ({"max_characters": 10}, "too_long: the text in en has 11 characters, more than 10"),
        ({"min_words": 3, "max_words": 3, "min_characters": 11, "max_characters": 11}, None),
        ({}, None),
    ],
)
def test_limits(limits: dict[str, int], reason: str | None) -> None:
    passed, rejects = _filter(_row(en="a small cat"), **limits)
    if reason is None:
        assert (passed, rejects) == (["en"], [])
    else:
        assert (passed, [f"{kind}: {why}" for kind, why, _ in rejects]) == ([], [reason])


def test_words_are_not_counted_where_they_are_not_parted() -> None:
    assert _filter(_row(zh="一只猫在沙发上睡觉"), min_words=3)[0] == ["zh"]


def test_a_row_loses_only_what_does_not_pass() -> None:
    passed, rejects = _filter(_row(en="a cat sleeps", de="Katze", fr="chat"), min_words=2)
    assert passed == ["en"]
    assert [(kind, whole) for kind, _, whole in rejects] == [("too_short", False), ("too_short", False)]
    passed, rejects = _filter(_row(en="cat", de="Katze"), min_words=2)
    assert passed == []
    assert [whole for _, _, whole in rejects] == [False, True]  # one row is rejected, not two


def test_rejects_pass_through() -> None:
    reject = Reject(0, 1, "not JSON")
    assert list(filter_texts([reject], QualityFilters(min_words=2))) == [reject]


def test_languages_are_checked_against_labels() -> None:
    passed, rejects = _filter(
        _row(en="Ein Hund rennt am Strand entlang und bellt.", fr="Un chien court sur la plage."),
        check_language=True,
    )
    assert passed == ["fr"]
    assert rejects == [("other_language", "the text in en is plainly in de", False)]
