from datastore_build.sources.entries import Entry, EntryText, group_rows
from datastore_build.sources.rows import Reject, Row


def _row(line: int, entry_id: str | None, *languages: str, source: int = 0) -> Row:
    return Row(source, line, entry_id, tuple((language, f"{language} {line}") for language in languages))


def _group(*items: Row | Reject) -> list[tuple[str, ...]]:
    """(id, languages…) of every entry, ("rejected", line, reason) of every reject."""
    result: list[tuple[str, ...]] = []
    for item in group_rows(items, ["a.jsonl", "b.jsonl"]):
        if isinstance(item, Entry):
            result.append((item.id, *(text.language for text in item.texts)))
        else:
            result.append(("rejected", str(item.line), item.reason))
    return result


def test_rows_without_an_id_are_entries_of_their_own() -> None:
    assert _group(_row(1, None, "en"), _row(2, None, "en"), _row(1, None, "en", source=1)) == [
        ("a.jsonl:1", "en"),
        ("a.jsonl:2", "en"),
        ("b.jsonl:1", "en"),
    ]


def test_adjacent_rows_of_one_id_are_merged() -> None:
    assert _group(_row(1, "x", "en"), _row(2, "x", "de", "fr"), _row(3, "y", "en")) == [
        ("x", "en", "de", "fr"),
        ("y", "en"),
    ]


def test_texts_keep_the_source_they_came_from() -> None:
    (entry,) = group_rows([_row(1, "x", "en"), _row(1, "x", "de", source=1)], ["a", "b"])
    assert entry == Entry("x", (EntryText("en", "en 1", 0), EntryText("de", "de 1", 1)))


def test_a_language_twice_is_rejected_and_the_first_kept() -> None:
    entries = _group(_row(1, "x", "en"), _row(2, "x", "en", "de"), _row(3, "x", "fr"))
    assert entries == [("rejected", "2", "the id 'x' already has a text in en"), ("x", "en", "fr")]


def test_an_id_that_comes_back_is_rejected() -> None:
    entries = _group(_row(1, "x", "en"), _row(2, "y", "en"), _row(3, "x", "de"), _row(4, "x", "fr"))
    assert [entry[:2] for entry in entries] == [
        ("x", "en"),
        ("y", "en"),
        ("rejected", "3"),
        ("rejected", "4"),
    ]
    assert entries[2][2] == "the id 'x' was used by an earlier row; the rows of one entry must stand together"


def test_rejects_pass_through_and_do_not_part_an_entry() -> None:
    entries = _group(_row(1, "x", "en"), Reject(0, 2, "not JSON"), _row(3, "x", "de"))
    assert entries == [("rejected", "2", "not JSON"), ("x", "en", "de")]
