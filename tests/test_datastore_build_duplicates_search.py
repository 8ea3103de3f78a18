import random
from pathlib import Path

import pytest

from datastore_build.duplicates import search as duplicate_search
from datastore_build.duplicates.search import DuplicateSearch, find_near_duplicates
from datastore_build.sources.entries import Entry, EntryText
from datastore_build.writer import CaptionsWriter
from retrieval.manifest import CAPTIONS
from retrieval.near_duplicates import SIMILARITY, character_trigrams, jaccard


def _find(folder: Path, *entries: dict[str, str], first: int = 0) -> DuplicateSearch:
    with CaptionsWriter(folder, ["s"]) as writer:
        for number, texts in enumerate(entries):
            writer.add([Entry(str(number), tuple(EntryText(*item, 0) for item in texts.items()))])
        writer.finish()
    return find_near_duplicates(folder / CAPTIONS, folder / "work", first, lambda fraction: None)


def test_case_punctuation_and_a_letter_make_no_other_text(tmp_path: Path) -> None:
    found = _find(
        tmp_path,
        {"en": "A dog runs along the beach at sunset."},
        {"en": "a red bus stops at a corner"},
        {"en": "a DOG runs along the beach, at sunset"},
        {"en": "A dog runs along the beaches at sunset."},
        {"de": "A dog runs along the beach at sunset."},  # of another language
    )
    assert [(duplicate.entry, duplicate.earlier_row) for duplicate in found.entries] == [(2, 0), (3, 0)]
    assert [entry in found.entries for entry in range(5)] == [False, False, True, True, False]
    assert found.texts == {"en": 2}
    assert [(pair.id, pair.earlier_id) for pair in found.first] == [("2", "0"), ("3", "0")]


def test_an_entry_is_a_duplicate_if_all_of_its_texts_are(tmp_path: Path) -> None:
    found = _find(
        tmp_path,
        {"en": "a cat sleeps on the sofa", "de": "eine Katze schläft auf dem Sofa"},
        {"en": "A cat sleeps on the sofa!", "de": "ein Kater döst auf der Couch"},
        {"en": "a cat sleeps on the sofa.", "de": "Eine Katze schläft auf dem Sofa."},
    )
    assert [(duplicate.entry, duplicate.texts) for duplicate in found.entries] == [(2, 2)]
    assert found.texts == {"en": 2, "de": 1}


def test_entries_that_were_there_before_are_only_compared_with(tmp_path: Path) -> None:
    texts = [{"en": "one and the same caption"}] * 4
    found = _find(tmp_path, *texts, first=2)
    assert [duplicate.entry for duplicate in found.entries] == [2, 3]


def test_it_finds_most_of_what_comparing_all_with_all_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicate_search, "_PART", 400)  # so that there are many parts
    draw = random.Random(5)
    words = ["dog", "cat", "beach", "red", "bus", "tree", "woman", "man", "kite", "runs", "old", "street"]
    texts: list[str] = []
    for _ in range(500):
        text = " ".join(draw.choices(words, k=8))
        if texts and draw.random() < 0.2:
            text = draw.choice(texts) + draw.choice([".", " today", "s", ""])
        texts.append(text)
    found = _find(tmp_path, *({"en": text} for text in texts))
    trigrams = [character_trigrams(text) for text in texts]
    expected = {
        number
        for number in range(500)
        if any(jaccard(trigrams[number], trigrams[earlier]) >= SIMILARITY for earlier in range(number))
    }
    assert {
        duplicate.entry for duplicate in found.entries
    } <= expected  # nothing is taken for a duplicate that is none
    assert len(found.entries) > 0.9 * len(expected)
    assert list((tmp_path / "work").rglob("*.pairs")) == []
