"""Data sets as they are published: photos, references by language, and rows that cannot be used are named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.readers.dataset import Dataset
from evaluation.readers.formats import DataFormat, default_split, read_dataset
from retrieval.errors import InvalidRequestError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "val2014").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "val2014/c.jpg"):
        Image.new("RGB", (2, 2)).save(folder / name)
    return folder


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(layout: str, captions: Path, images: Path, split: str = "test", limit: int | None = None) -> Dataset:
    return read_dataset(
        DataFormat(layout), captions, images, index=None, split=split, kinds=None, limit=limit
    )


def texts(data: Dataset) -> dict[str, dict[str, list[str]]]:
    return {
        language: {key: list(own) for key, own in found.texts.items()}
        for language, found in data.references.items()
    }


def test_xm3600(tmp_path: Path, images: Path) -> None:
    captions = write_lines(
        tmp_path / "captions.jsonl",
        {
            "image/key": "a",
            "image/locale": "en",
            "en": {"caption": ["A  dog.", "Dog."], "caption/tokenized": ["a", "dog"]},
            "fil": {"caption": ["Isang aso."]},
        },
        {"image/key": "b", "th": {"caption": []}, "en": {"caption": ["A cat."]}},
        {"image/key": "missing", "en": {"caption": ["A bird."]}},
        {"en": {"caption": ["Nothing."]}},
        "{not json",
    )
    data = read("xm3600", captions, images)
    assert [(photo.image_id, photo.path.name) for photo in data.photos] == [("a", "a.jpg"), ("b", "b.jpg")]
    assert texts(data) == {"en": {"a": ["A dog.", "Dog."], "b": ["A cat."]}, "fil": {"a": ["Isang aso."]}}
    assert all(found.by_people for found in data.references.values())
    assert [reason.split(":")[1].split(" ")[0] for reason in data.rejected] == ["2", "3", "4", "5"]
    assert "captions.jsonl:2 (th): there is no caption" in data.rejected
    assert "no 'image/key'" in data.rejected[2]
    assert texts(read("xm3600", captions, images, limit=1))["en"] == {"a": ["A dog.", "Dog."]}


def test_karpathy(tmp_path: Path, images: Path) -> None:
    row = {"filepath": "val2014", "filename": "c.jpg", "cocoid": 17, "split": "test"}
    rows = [
        {**row, "sentences": [{"raw": "A dog.", "tokens": ["a", "dog"]}, {"raw": "Dog."}]},
        {"filename": "a.jpg", "imgid": 2, "split": "test", "sentences": [{"tokens": ["a"]}]},
        {"filename": "b.jpg", "imgid": 3, "split": "train", "sentences": [{"raw": "A cat."}]},
        "what?",
    ]
    captions = tmp_path / "dataset_coco.json"
    captions.write_text(json.dumps({"dataset": "coco", "images": rows}))
    data = read("karpathy", captions, images)
    assert texts(data) == {"en": {"17": ["A dog.", "Dog."]}}
    assert data.photos[0].path == images / "val2014" / "c.jpg"
    assert [reason.split(":")[0] for reason in data.rejected] == [
        "dataset_coco.json, images[1]",
        "dataset_coco.json, images[3]",
    ]
    with pytest.raises(InvalidRequestError, match="no split 'val'"):
        read("karpathy", captions, images, split="val")
    captions.write_text("[]")
    with pytest.raises(InvalidRequestError, match="has a list 'images'"):
        read("karpathy", captions, images)


def test_multi30k(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "multi30k"
    write_lines(folder / "task2/image_splits/test_2016_images.txt", "a.jpg", "b.jpg")
    write_lines(folder / "task2/raw/test_2016.1.de", "Ein Hund.", "Eine Katze.")
    write_lines(folder / "task2/raw/test_2016.2.de", "Hund.", "")
    with gzip.open(folder / "task2/raw/test_2016.1.en.gz", "wt", encoding="utf-8") as file:
        file.write("A dog.\nA cat\u2028here.\n")  # a line separator is not the end of a line
    data = read("multi30k", folder, images, split="test_2016")
    assert texts(data) == {
        "de": {"a.jpg": ["Ein Hund.", "Hund."], "b.jpg": ["Eine Katze."]},
        "en": {"a.jpg": ["A dog."], "b.jpg": ["A cat here."]},
    }
    assert data.rejected == ("test_2016.2.de:2: there is no caption",)
    write_lines(folder / "task2/raw/test_2016.3.de", "Hund.")
    with pytest.raises(InvalidRequestError, match=r"has 1 lines, and .* names 2 photos"):
        read("multi30k", folder, images, split="test_2016")
    with pytest.raises(InvalidRequestError, match=r"no file test_2017\.txt"):
        read("multi30k", folder, images, split="test_2017")


def test_xflickrco(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "xflickrco"
    write_lines(folder / "de/test.jsonl", {"sentences": ["Ein Hund."], "id": 1, "img_path": "a.jpg"})
    write_lines(
        folder / "zh/test.jsonl",
        {"sentences": ["一只狗。"], "id": 1, "img_path": "a.jpg"},
        {"sentences": ["一只猫。"], "id": 2},
    )
    data = read("xflickrco", folder, images)
    assert texts(data) == {"de": {"1": ["Ein Hund."]}, "zh": {"1": ["一只狗。"]}}
    assert data.rejected == ("zh/test.jsonl:2: the row has no 'img_path'",)
    with pytest.raises(InvalidRequestError, match=r"no file LANGUAGE/dev\.jsonl"):
        read("xflickrco", folder, images, split="dev")


def test_any_lines(tmp_path: Path, images: Path) -> None:
    captions = write_lines(
        tmp_path / "mine.jsonl",
        {"image": "a.jpg", "references": "Um cachorro.", "language": "pt-BR"},
        {"image": "a.jpg", "references": ["Ein Hund."], "language": "de", "image_id": "a.jpg"},
        {"image": "b.jpg", "references": [3], "language": "de"},
        {"image": "b.jpg", "references": ["Eine Katze."], "language": "Klingonish"},
        {"image": "b.jpg", "references": ["Eine Katze."]},
        ["a list"],
        "",
    )
    data = read("lines", captions, images)
    assert texts(data) == {"de": {"a.jpg": ["Ein Hund."]}, "pt": {"a.jpg": ["Um cachorro."]}}
    reasons = [reason.partition(": ")[2] for reason in data.rejected]
    assert reasons[0] == "the captions are not texts"
    assert "Klingonish" in reasons[1]
    assert reasons[2:] == ["the row has no 'language'", "not a JSON object"]


def test_nothing_usable_is_an_error_with_a_reason(tmp_path: Path, images: Path) -> None:
    captions = write_lines(tmp_path / "c.jsonl", {"image": "x.jpg", "references": "A dog.", "language": "en"})
    with pytest.raises(InvalidRequestError, match=r"no photo with captions .*the photo is not at"):
        read("lines", captions, images)
    with pytest.raises(InvalidRequestError, match="cannot read"):
        read("xm3600", tmp_path / "nowhere.jsonl", images)
    with pytest.raises(InvalidRequestError, match="--index"):
        read("index", captions, images)
    assert [default_split(layout) for layout in (DataFormat.INDEX, DataFormat.XM3600)] == ["dev", "all"]
