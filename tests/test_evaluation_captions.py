"""Captioning and scoring a small data set with a captioner that has learnt it by heart."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from evaluation.caption_outputs import read_outputs, save_outputs
from evaluation.caption_report import CaptionRunDescription, caption_report
from evaluation.captions import Mode, WrittenCaption, score_written, write_captions
from evaluation.references import Photo, References
from models.captions import Caption, CaptionResult, CaptionSettings, ImageCaptions
from retrieval.datastore import Neighbour
from retrieval.errors import InvalidRequestError

TEXTS = {
    "en": ["A dog runs over the grass.", "Two children swim in a lake.", "An old man repairs his bicycle."],
    "zh": ["一只狗在草地上奔跑。", "两个孩子在湖里游泳。", "一位老人在修理自行车。"],
}
REFERENCES = {
    "en": References("en", ("human",), {str(n): [TEXTS["en"][n], "Something else."] for n in range(3)}),
    "zh": References("zh", ("MT",), {str(n): [TEXTS["zh"][n]] for n in range(2)}),  # none for the last photo
}
RUN = CaptionRunDescription("tiny", "r1", "20261122-1", "dev", 3, 3, 4)


class Rote:
    """Knows photos by their shade. Without neighbours it says the same of every photo."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, CaptionSettings]] = []

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult:
        self.calls.append((len(images), settings))
        blind = settings.neighbours == 0
        results = []
        for image in images:
            pixel = image.getpixel((0, 0))
            assert isinstance(pixel, tuple)
            captions = [
                Caption(
                    language,
                    TEXTS[language][0 if blind else int(pixel[0])],
                    0.5,
                    neighbours=() if blind else (Neighbour("e1", "A neighbour.", "en", 0.9),),
                )
                for language in settings.languages
            ]
            results.append(ImageCaptions(tuple(captions)))
        return CaptionResult(tuple(results))


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    photos = []
    for n in range(3):
        Image.new("RGB", (4, 4), (n, n, n)).save(tmp_path / f"{n}.png")
        photos.append(Photo(str(n), tmp_path / f"{n}.png"))
    return photos


@pytest.fixture
def written(photos: list[Photo]) -> list[WrittenCaption]:
    modes: tuple[Mode, ...] = ("with", "without")
    return [output for mode in modes for output in write_captions(Rote(), photos, ["en", "zh"], mode)]


def test_all_languages_of_a_batch_of_photos_in_one_call(photos: list[Photo]) -> None:
    captioner, done = Rote(), list[int]()
    written = write_captions(
        captioner, photos, ["en", "zh"], "without", beams=2, batch_size=2, advance=done.append
    )
    assert [
        (n, settings.languages, settings.beams, settings.neighbours) for n, settings in captioner.calls
    ] == [
        (2, ("en", "zh"), 2, 0),
        (1, ("en", "zh"), 2, 0),
    ]
    assert done == [2, 1]
    assert [(output.image_id, output.caption.language) for output in written] == [
        (image_id, language) for image_id in "012" for language in ("en", "zh")
    ]


def test_retrieval_is_seen_to_help_and_photos_without_reference_do_not_count(
    written: list[WrittenCaption],
) -> None:
    english, chinese = score_written(written, REFERENCES)
    assert english.scores["with"].images == 3
    assert chinese.scores["with"].images == 2
    assert chinese.scores["with"].cider_d == pytest.approx(1000)
    for result in (english, chinese):
        assert result.scores["with"].cider_d > 1.5 * result.scores["without"].cider_d


def test_the_report_keeps_machine_references_apart(written: list[WrittenCaption]) -> None:
    results = score_written(written, REFERENCES)
    report = caption_report(results, RUN)
    people, machine, groups, others, compliance, texts, lengths = report.tables
    english, chinese = results
    assert people.header == [
        "language", "references", "photos", "per photo", "with retrieval", "without retrieval", "gain",
    ]  # fmt: skip
    assert [row[0] for row in people.rows] == ["en", "mean"]
    assert [row[0] for row in machine.rows] == ["zh", "mean"]
    assert people.rows[0][1:4] == ["human", "3", "2.00"]
    assert people.rows[0][4].startswith(f"{english.scores['with'].cider_d:.1f} [")
    assert people.rows[0][-1].startswith("+")
    for table in (others, compliance, texts, lengths):
        assert [row[:2] for row in table.rows] == [
            ["en", "with"], ["en", "without"], ["zh", "with"], ["zh", "without"],
        ]  # fmt: skip
    assert [row[0] for row in groups.rows] == ["L36 (2 of 36)", "core (2 of 4)"]
    assert others.rows[2][2:] == ["100.0", "100.0", "100.0", "–"]  # Chinese copies its references
    assert lengths.rows[2][2:] == ["9.0 ± 0.0", "9, 9, 9", "9.0"]
    assert compliance.rows[0][2:] == ["100.0%", "100.0%", "100.0%"]
    text = report.markdown()
    facts = (
        "datastore 20261122-1",
        "split dev: 3 photos; beams 3",
        "tok:words",
        "tok:characters",
        "BLEU|",
        "chrF2|",
    )
    for fact in facts:
        assert fact in text
    means = report.document["mean_cider_d"]
    assert means["people"]["with"] == english.scores["with"].cider_d
    assert means["machine"]["without"] == chinese.scores["without"].cider_d
    assert json.loads(json.dumps(report.document)) == report.document


def test_one_mode_alone_has_no_gain(photos: list[Photo]) -> None:
    written = write_captions(Rote(), photos, ["en"], "without")
    report = caption_report(score_written(written, {"en": REFERENCES["en"]}), RUN)
    assert report.tables[0].header[-1] == "without retrieval"
    assert set(report.document["languages"][0]["retrieval"]) == {"without"}


def test_outputs_can_be_looked_at(written: list[WrittenCaption], tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    save_outputs(path, written, score_written(written, REFERENCES))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    first, last = rows[0], rows[-1]
    assert (first["image_id"], first["file"], first["language"], first["retrieval"]) == (
        "0",
        "0.png",
        "en",
        "with",
    )
    assert first["text"] == first["references"][0] == TEXTS["en"][0]
    assert first["neighbours"][0]["text"] == "A neighbour."
    assert first["cider_d"] > 100
    assert (last["cider_d"], last["references"], last["neighbours"]) == (None, [], [])


def test_outputs_are_scored_again_without_captioning(written: list[WrittenCaption], tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    results = score_written(written, REFERENCES)
    save_outputs(path, written, results)
    again = score_written(read_outputs(path, set("012"), {"en", "zh"}), REFERENCES)
    assert [result.scores for result in again] == [result.scores for result in results]
    few = read_outputs(path, {"0"}, {"en"})
    assert [(output.retrieval, output.caption.text) for output in few] == [
        ("with", TEXTS["en"][0]),
        ("without", TEXTS["en"][0]),
    ]
    assert few[0].caption.neighbours == (Neighbour("e1", "A neighbour.", "en", 0.9),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": "0", "language": "en"}], "1: the row has no 'text'"),
        ([{"image_id": "0", "language": "en", "text": "x", "retrieval": "k=x"}], "retrieval is 'k=x'"),
        ([{"image_id": "0", "language": "en", "text": "x", "neighbours": [{"rank": 1}]}], "1: .*'id'"),
        ([{"image_id": "0", "language": "en", "text": "x", "neighbours": [7]}], "1: .*int"),
        ([{"image_id": "0", "language": "en", "text": "x", "neighbours": None}], "1: .*iterable"),
        ([{"image_id": "9", "language": "en", "text": "x"}], "no caption of these photos"),
        (
            [
                {"image_id": "0", "language": "en", "text": "x"},
                {"image_id": "1", "language": "en", "text": "x", "retrieval": "k=2"},
            ],
            "other photos in one mode",
        ),
    ],
)
def test_outputs_that_cannot_be_scored_are_told(
    rows: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidRequestError, match=message):
        read_outputs(path, {"0", "1"}, {"en"})


def test_curves_over_the_number_of_neighbours(photos: list[Photo]) -> None:
    captioner = Rote()
    modes = ("with", "without", "k=1", "k=2")
    written = [output for mode in modes for output in write_captions(captioner, photos, ["en"], mode)]
    assert [settings.neighbours for _, settings in captioner.calls] == [None, 0, 1, 2]
    report = caption_report(score_written(written, {"en": REFERENCES["en"]}), RUN)
    (curve,) = (table for table in report.tables if "number of retrieved" in table.title)
    assert list(curve.header) == ["language", "k = 0", "k = 1", "k = 2", "k = 4"]  # the bundle takes 4
    assert curve.rows[0][2] == curve.rows[0][4] != curve.rows[0][1]
    assert [row[0] for row in curve.rows] == ["en", "mean"]
