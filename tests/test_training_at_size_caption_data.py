"""COCO's captions and their translations: tied together, in one written form, and nothing lost unsaid."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import SCENES, caption_id, karpathy_document, translation, write_karpathy, write_rows

from retrieval.errors import InvalidRequestError
from training.at_size.caption_data import SizedData, read_caption_data
from training.at_size.caption_table import CaptionData
from training.config import check_settings

GERMAN = [
    # Another order than Karpathy's, other case, other tokens.
    translation(
        "11_0", "de", "someone 's kite -lrb- red -rrb- is flying !", "Jemandes roter Drachen fliegt !"
    ),
    translation("11_1", "de", "wind lifts a kite .", "Der Wind hebt einen Drachen ."),
    translation("11_2", "de", "a red kite over the dunes .", "ein roter Drachen über den Dünen ."),
    translation("13_0", "de", "it 's late : a desk with a lamp .", "Es ist spät : ein Tisch mit Lampe ."),
]


def data_of(folder: Path, rows: list[Any], name: str = "translations.jsonl", **settings: Any) -> SizedData:
    return SizedData(
        karpathy=write_karpathy(folder / "dataset_coco.json"),
        translations=[write_rows(folder / name, rows)],
        features=folder / "features",
        neighbours=folder / "neighbours.arrow",
        **{"languages": ["en", "de"], **settings},
    )


def texts(captions: CaptionData, language: str) -> dict[int, str]:
    return {
        int(captions.caption_ids[row]): text
        for row in captions.rows(language)
        if (text := captions.text(language, int(row))) is not None
    }


def test_translations_are_tied_to_the_caption_with_the_same_words(tmp_path: Path) -> None:
    captions = read_caption_data(data_of(tmp_path, GERMAN))
    assert texts(captions, "de") == {
        caption_id(11, 0): "Ein roter Drachen über den Dünen.",
        caption_id(11, 1): "Jemandes roter Drachen fliegt.",
        caption_id(11, 2): "Der Wind hebt einen Drachen.",
        caption_id(13, 1): "Es ist spät: ein Tisch mit Lampe.",
    }
    assert texts(captions, "en")[caption_id(11, 1)] == "Someone's kite (red) is flying."
    assert captions.count("en") == 9  # of train and restval; the val photo is not there to be learnt from
    assert captions.image_ids == ["11", "12", "13"]
    assert captions.report == ["3 photos, 9 captions", "en: 9 captions", "de: 4 captions"]


@pytest.mark.parametrize("name", ["t.jsonl.bz2", "t.jsonl.gz", "t.jsonl"])
def test_packed_files_say_the_same(tmp_path: Path, name: str) -> None:
    assert read_caption_data(data_of(tmp_path, GERMAN, name)).count("de") == 4


def test_captions_of_equal_words_get_a_translation_each(tmp_path: Path) -> None:
    rows = [
        translation(f"12_{number}", "de", "Two goats eat thistles .", f"Ziegen, Fassung {number}")
        for number in range(3)
    ]
    captions = read_caption_data(data_of(tmp_path, rows))
    assert texts(captions, "de") == {
        caption_id(12, 0): "Ziegen, Fassung 0.",
        caption_id(12, 2): "Ziegen, Fassung 1.",
    }
    assert captions.report[-1] == (
        "1 left out: there is a translation of this caption into this language already (translations.jsonl:3)"
    )


def test_files_of_ones_own_may_name_the_caption(tmp_path: Path) -> None:
    rows = [
        {"image_id": 13, "caption_id": caption_id(13, 2), "trg_lang": "de-AT", "translation": "Die Lampe."},
        {"image_id": "13_0", "trg_lang": "deu", "translation": "Der Tisch."},
    ]
    captions = read_caption_data(data_of(tmp_path, rows))
    assert texts(captions, "de") == {caption_id(13, 2): "Die Lampe.", caption_id(13, 0): "Der Tisch."}


def test_every_row_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    good = GERMAN[0]
    bad = {
        "the line is not JSON": '{"image_id": "11_0", ',
        "the line is not a JSON object": "[1, 2]",
        "it has no 'trg_lang'": {**good, "trg_lang": None},
        "'trg_lang' or 'src_lang' is no language": {**good, "trg_lang": "xx-?"},
        "it is not translated from English": {**good, "src_lang": "fr"},
        "it has no text 'translation_tokenized'": {**good, "translation_tokenized": " "},
        "the translation has no words": {**good, "translation_tokenized": " . "},
        "it has no 'image_id'": {**good, "image_id": None},
        "its photo is not in the Karpathy file": {**good, "image_id": "99_0"},
        "its photo is in the split 'val'": {**good, "image_id": "14_0"},
        "its 'caption_id' is not of its photo": {**good, "caption_id": caption_id(12, 0)},
        "its English caption is none of its photo's": {**good, "caption_tokenized": "A boat ."},
        "it does not say which caption of its photo it translates": {
            "image_id": "11_7",
            "trg_lang": "de",
            "translation": "Ein Drachen",
        },
    }
    rows = [*bad.values(), "", good, {**good, "trg_lang": "fr"}]
    log = tmp_path / "rejected.jsonl"
    captions = read_caption_data(data_of(tmp_path, rows), rejected=log)
    logged = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [(row["place"], row["reason"]) for row in logged] == [
        (str(line), reason) for line, reason in enumerate(bad, start=1)
    ]
    assert {row["file"] for row in logged} == {str(tmp_path / "translations.jsonl")}
    assert captions.count("de") == 1
    assert {line.split(" (")[0] for line in captions.report[3:]} == {
        f"1 left out: {reason}" for reason in bad
    }


def test_bad_rows_of_the_karpathy_file_are_named_too(tmp_path: Path) -> None:
    document = karpathy_document()
    images = document["images"]
    images[0]["sentences"][1] = {"raw": "No number."}
    images[0]["sentences"].append({"raw": " ", "sentid": 7})
    images[0]["sentences"].append({"raw": "A number again.", "sentid": caption_id(11, 0)})
    images += [
        None,
        {**images[0], "filename": "../secret.jpg"},
        {**images[0], "filepath": "/etc"},
        {**images[0], "split": 3},
        {**images[0], "sentences": None},
        images[1],
    ]
    data = data_of(tmp_path, GERMAN)
    write_karpathy(data.karpathy, document)
    log = tmp_path / "rejected.jsonl"
    captions = read_caption_data(data, rejected=log)
    rejected = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [row["place"] for row in rejected[:3]] == [
        "images[0].sentences[1]",
        "images[0].sentences[3]",
        "images[0].sentences[4]",
    ]
    assert [row["place"] for row in rejected[3:9]] == [f"images[{number}]" for number in range(4, 10)]
    assert rejected[8]["reason"] == "the photo comes twice"
    assert captions.count("en") == 8


def test_a_written_form_for_each_language(tmp_path: Path) -> None:
    english = "a red kite over the dunes ."
    rows = [
        translation("11_0", "ja", english, "砂丘 の 上 の 赤い 凧 。"),
        translation("11_0", "th", english, "ว่าว สีแดง บน iPad ใหม่"),
        translation("11_0", "bn", english, "বালিয়াড়ির উপর লাল ঘুড়ি ।"),
        translation("11_0", "iw", english, "עפיפון אדום"),
    ]
    captions = read_caption_data(data_of(tmp_path, rows, languages=["ja", "th", "bn", "he"]))
    assert {code: captions.text(code, 0) for code in captions.languages} == {
        "ja": "砂丘の上の赤い凧。",
        "th": "ว่าวสีแดงบนiPadใหม่",
        "bn": "বালিয়াড়ির উপর লাল ঘুড়ি।",
        "he": "עפיפון אדום.",
    }


def test_what_was_read_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(tmp_path, GERMAN, captions=tmp_path / "kept" / "captions.arrow")
    first = read_caption_data(data)
    with monkeypatch.context() as patch:
        reader = "training.at_size.caption_data.read_captioned_photos"
        patch.setattr(reader, lambda *_: pytest.fail("read again"))
        again = read_caption_data(data)
    assert texts(again, "de") == texts(first, "de")
    assert texts(again, "en") == texts(first, "en")
    assert again.report == first.report
    assert again.image_ids == first.image_ids
    assert np.array_equal(again.photos, first.photos)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["captions.arrow"]

    write_rows(data.translations[0], GERMAN[:1])
    os.utime(data.translations[0], ns=(1, 1))
    assert read_caption_data(data).count("de") == 1

    assert data.captions is not None
    data.captions.write_bytes(data.captions.read_bytes()[:100])
    with pytest.raises(InvalidRequestError, match="damaged: delete it"):
        read_caption_data(data)


def test_rows_are_found_by_caption_id(tmp_path: Path) -> None:
    captions = read_caption_data(data_of(tmp_path, GERMAN))
    ids = np.array([[caption_id(13, 2), 5], [caption_id(11, 0), -1]])
    rows = captions.rows_of(ids)
    assert rows.tolist() == [[8, -1], [0, -1]]


def test_english_alone_needs_no_translations(tmp_path: Path) -> None:
    data = data_of(tmp_path, [], languages=["en"])
    captions = read_caption_data(data.model_copy(update={"translations": []}))
    assert captions.languages == ["en"]
    assert captions.count("en") == sum(len(own) for split, own in SCENES.values() if split != "val")


def test_files_and_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = data_of(tmp_path, GERMAN)
    with pytest.raises(InvalidRequestError, match="no caption in fr: set `languages`"):
        read_caption_data(data.model_copy(update={"languages": ["en", "fr"]}))
    with pytest.raises(InvalidRequestError, match=r"cannot read .*nowhere\.jsonl"):
        read_caption_data(data.model_copy(update={"translations": [tmp_path / "nowhere.jsonl"]}))
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(write_rows(tmp_path / "whole.jsonl.gz", GERMAN * 50).read_bytes()[:-20])
    with pytest.raises(InvalidRequestError, match=r"cannot read .*broken\.jsonl\.gz after line"):
        read_caption_data(data.model_copy(update={"translations": [broken]}))
    data.karpathy.write_text('{"annotations": []}')
    with pytest.raises(InvalidRequestError, match="list 'images'"):
        read_caption_data(data)
    data.karpathy.write_text("{")
    with pytest.raises(InvalidRequestError, match="not JSON"):
        read_caption_data(data)
    settings = {"karpathy": "k", "features": "f", "neighbours": "n"}
    with pytest.raises(InvalidRequestError, match="a language comes twice"):
        check_settings({**settings, "languages": ["no", "nb"]}, SizedData, "recipe")
    with pytest.raises(InvalidRequestError, match="not a language tag"):
        check_settings({**settings, "languages": ["english!"]}, SizedData, "recipe")
