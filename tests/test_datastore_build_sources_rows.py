from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore_build.sources.rows import LONGEST_TEXT, RowError, parse_row


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "a cat"}, (None, (("en", "a cat"),))),
        ({"caption": "a cat"}, (None, (("en", "a cat"),))),
        ({"id": "7", "text": "un chat", "language": "fr"}, ("7", (("fr", "un chat"),))),
        ({"id": 7, "text": "um gato", "lang": "pt-BR"}, ("7", (("pt", "um gato"),))),
        ({"id": 7.0, "text": "a cat"}, ("7", (("en", "a cat"),))),
        ({"id": None, "text": "a cat", "language": None, "other": {}}, (None, (("en", "a cat"),))),
        ({"texts": {"en": "a cat", "zh-Hans": "一只猫"}}, (None, (("en", "a cat"), ("zh", "一只猫")))),
        ({"texts": {"en": "a cat", "de": None}}, (None, (("en", "a cat"),))),
        ({"text": "  a\tcat\r\n sleeps "}, (None, (("en", "a cat sleeps"),))),
        ({"text": "cafe\u0301"}, (None, (("en", "caf\u00e9"),))),
        ({"text": "क्‍या"}, (None, (("en", "क्‍या"),))),  # a zero-width joiner is part of the word
        ({"text": "x" * LONGEST_TEXT}, (None, (("en", "x" * LONGEST_TEXT),))),
    ],
)
def test_usable_rows(fields: dict[str, Any], expected: object) -> None:
    assert parse_row(fields, "en") == expected


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["a cat"], "the row is not an object but a list"),
        ("a cat", "the row is not an object but a string"),
        (None, "the row is not an object but null"),
        ({}, "the row has no text: give text, caption or texts"),
        ({"text": None}, "the row has no text"),
        ({"text": ""}, "text is empty"),
        ({"caption": " \n "}, "caption is empty"),
        ({"text": "\u200b\u200d"}, "text is empty"),
        ({"text": 5}, "text is not a string but a number"),
        ({"text": ["a"]}, "text is not a string but a list"),
        ({"text": True}, "text is not a string but a boolean"),
        ({"text": "x" * (LONGEST_TEXT + 1)}, "text has 2,001 characters, more than 2,000"),
        ({"text": "a\x00b"}, r"control character U\+0000"),
        ({"text": "a\x1b[31mb"}, r"control character U\+001B"),
        ({"text": "a\ud800"}, "text is not valid UTF-8"),
        ({"text": "a", "caption": "b"}, "both text and caption"),
        ({"text": "a", "texts": {"en": "b"}}, "both texts and text"),
        ({"text": "a", "language": "xx"}, "'xx' is not a language tag"),
        ({"text": "a", "language": ""}, "'' is not a language tag"),
        ({"text": "a", "language": 3}, "the language is not a string but a number"),
        ({"text": "a", "language": "en", "lang": "de"}, "both language and lang"),
        ({"texts": "a"}, "texts is not an object"),
        ({"texts": {}}, "texts holds no text"),
        ({"texts": {"en": "a", "de": ""}}, "the text in de is empty"),
        ({"texts": {"pt": "a", "pt-BR": "b"}}, "two texts in pt"),
        ({"texts": {"klingonese": "a"}}, "is not a language tag"),
        ({"id": [1], "text": "a"}, "the id is neither a string nor a whole number but a list"),
        ({"id": 1.5, "text": "a"}, "the id is neither"),
        ({"id": True, "text": "a"}, "the id is neither"),
        ({"id": "a\nb", "text": "a"}, "the id holds the control character"),
        ({"id": "x" * 257, "text": "a"}, "the id is longer"),
        ({"id": 10**4000, "text": "a"}, "the id is too large"),
    ],
)
def test_unusable_rows_say_why(fields: object, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse_row(fields, "en")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["id", "text", "caption", "texts", "language", "lang"])


@given(st.dictionaries(_names, _json, max_size=4) | _json)
def test_any_row_is_usable_or_says_why_on_one_line(fields: object) -> None:
    try:
        entry_id, texts = parse_row(fields, "en")
    except RowError as error:
        reason: str | None = str(error)
    else:
        reason = None
        assert entry_id is None or entry_id
        assert texts
        for _, text in texts:
            assert text == " ".join(text.split()) != ""
            text.encode()
    assert reason is None or (reason and "\n" not in reason)
