"""`paellera evaluate …` on a small data set, with a bundle that needs no weights."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import evaluation.cli
from evaluation.cli import evaluate_app, select_languages
from evaluation.references import References
from models.captions import Caption, CaptionResult, CaptionSettings, ImageCaptions
from retrieval.errors import InvalidRequestError, PaelleraError, UnknownLanguageError

TEXTS = {"de": ["Ein Hund rennt im Gras.", "Zwei Kinder schwimmen."], "en": ["A dog runs.", "Two kids swim."]}


def number(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


class TinyCaptioner:
    languages = ("de", "en", "fr")
    bundle_name, revision = "tiny", "r1"

    def __init__(self, datastore: Path | None) -> None:
        self.datastore = SimpleNamespace(version=datastore.name if datastore else "own")

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult:
        return CaptionResult(
            tuple(
                ImageCaptions(
                    tuple(
                        Caption(language, TEXTS[language][number(image)], 1.0)
                        for language in settings.languages
                    )
                )
                for image in images
            )
        )

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return np.eye(2, dtype=np.float32)[[number(image) for image in images]]

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return embed_texts(texts)

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            [2.0 if any(text == own[number(image)] for own in TEXTS.values()) else -2.0 for text in asked]
            for image, asked in zip(images, texts, strict=True)
        ]


def embed_texts(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    every = [text for texts in TEXTS.values() for text in texts]
    # A foil is anywhere.
    return np.eye(2, dtype=np.float32)[[every.index(text) % 2 if text in every else 0 for text in texts]]


class TinyBundle:
    manifest = SimpleNamespace(
        name="tiny",
        revision="r1",
        languages=TinyCaptioner.languages,
        generation=SimpleNamespace(match_weight=0.02, neighbours=4),
        embedder=SimpleNamespace(id="tiny-2"),
    )

    def load_captioner(self, datastore: Path | None = None) -> TinyCaptioner:
        return TinyCaptioner(datastore)

    def load_photo_embedder(self) -> TinyCaptioner:
        return TinyCaptioner(None)

    load_photo_matcher = load_photo_embedder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evaluation.cli, "_open_bundle", lambda path: TinyBundle())
    with (tmp_path / "images.jsonl").open("w") as index, (tmp_path / "captions.jsonl").open("w") as captions:
        for n in range(2):
            Image.new("RGB", (2, 2), (n, 0, 0)).save(tmp_path / f"{n}.png")
            index.write(json.dumps({"image_id": str(n), "file": f"{n}.png", "split": "dev"}) + "\n")
            for language, texts in TEXTS.items():
                row = {"image_id": str(n), "lang": language, "caption": texts[n], "kind": "human"}
                captions.write(json.dumps(row) + "\n")
    return tmp_path


def run(command: str, data: Path, *options: str | Path) -> Result:
    arguments = [command, "--images", data, "--index", data / "images.jsonl"]
    arguments += ["--captions", data / "captions.jsonl", *options]
    return CliRunner().invoke(evaluate_app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    assert isinstance(result.exception, PaelleraError)
    return str(result.exception)


def test_captions_prints_a_table_and_writes_all_it_is_asked_for(data: Path) -> None:
    files = [data / "report.md", data / "report.json", data / "outputs.jsonl"]
    result = run(
        "captions", data, "--datastore", data / "v7", "--beams", "2",
        "--output", files[0], "--output", files[1], "--outputs", files[2],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for part in ("CIDEr-D", "datastore v7", "split dev: 2 photos; beams 2", "tok:ptb", "tok:13a", "mean"):
        assert part in result.stdout
    assert "captioning with retrieval" not in result.stdout  # progress is on standard error
    report = json.loads(files[1].read_text())
    assert [language["language"] for language in report["languages"]] == ["de", "en"]
    assert report["languages"][0]["retrieval"]["with"]["loops"] == 0
    assert "| de | human | 2 | 1.00 |" in files[0].read_text()
    assert "![CIDEr-D by language and by number of neighbours](report.png)" in files[0].read_text()
    assert (data / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (
        report["languages"][0]["retrieval"]["with"]["clip_score"] == 250
    )  # the embedder has learnt these texts
    assert report["embedder"] == "tiny-2"
    assert len(files[2].read_text().splitlines()) == 2 * 2 * 2


def test_captions_without_retrieval_name_no_datastore(data: Path) -> None:
    result = run("captions", data, "--retrieval", "without", "--language", "German", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "no datastore" in result.stdout
    assert "1 photos" in result.stdout


def test_captions_written_once_are_scored_and_shown_in_other_ways(data: Path) -> None:
    outputs, page, report = data / "outputs.jsonl", data / "report.html", data / "report.json"
    result = run("captions", data, "--datastore", data / "v7", "--neighbours", "0-5", "--outputs", outputs)
    assert result.exit_code == 0, result.output
    assert "by the number of retrieved captions" in result.stdout
    assert len(outputs.read_text().splitlines()) == 6 * 2 * 2  # 0 is without, 4 with
    result = run(
        "captions", data, "--from-outputs", outputs, "--tokenisers", "plain", "--retrieval", "with",
        "--examples", "1", "-o", page, "-o", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "captioning" not in result.stderr
    assert "tok:words" in result.stdout
    assert list(json.loads(report.read_text())["languages"][0]["retrieval"]) == ["with"]
    assert TEXTS["de"][0] in page.read_text(encoding="utf-8")


def test_captions_of_another_layout(data: Path) -> None:
    rows: list[object] = [
        {"image": f"{n}.png", "references": texts[n], "language": language}
        for language, texts in TEXTS.items()
        for n in range(2)
    ]
    (data / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"image": "0.png"}]))
    command = ["captions", "--format", "lines", "--images", data, "--captions", data / "mine.jsonl"]
    command += ["--retrieval", "without", "--output", data / "report.json"]
    result = CliRunner().invoke(evaluate_app, [str(argument) for argument in command])
    assert result.exit_code == 0, result.output
    assert "left out: mine.jsonl:5: the row has no 'language'" in result.stderr
    assert "1 rows of the data set were left out" in result.stdout
    report = json.loads((data / "report.json").read_text())
    assert report["rejected"] == ["mine.jsonl:5: the row has no 'language'"]
    assert report["split"] == "all"


def test_a_missing_package_is_told_before_any_work(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyCaptioner, "caption", lambda *arguments: pytest.fail("captioned"))
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    message = refused(run("captions", data, "--retrieval", "without"))
    assert "need sacrebleu: pip install 'paellera[evaluation]'" in message


def test_neutral(data: Path) -> None:
    result = run("neutral", data, "--datastore", data / "v7", "-l", "de", "--output", data / "report.json")
    assert result.exit_code == 0, result.output
    assert "datastore v7" in result.stdout
    (language,) = json.loads((data / "report.json").read_text())["languages"]
    assert (language["captions"]["gendered"], language["captions"]["people"]) == (0, 0.5)


def test_retrieval(data: Path) -> None:
    result = run("retrieval", data, "-l", "en", "--output", data / "report.json")
    assert result.exit_code == 0, result.output
    assert "tiny-2" in result.stdout
    (language,) = json.loads((data / "report.json").read_text())["languages"]
    assert (language["language"], language["recall"]) == ("en", {"1": 1.0, "5": 1.0, "10": 1.0})


def test_matcher(data: Path) -> None:
    result = run("matcher", data, "--all", "-o", data / "report.md", "-o", data / "report.json", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)  # nothing but the document
    assert document == json.loads((data / "report.json").read_text())
    assert (document["photos"], document["match_weight"]) == (2, 0.02)
    assert document["all"]["calibration"]["auc"] == 1.0
    assert "![Reliability diagram](report.png)" in (data / "report.md").read_text()
    assert (data / "report.png").is_file()


def test_matcher_leaves_out_what_it_was_fitted_on(data: Path) -> None:
    result = run("matcher", data)
    assert result.exit_code == 0, result.output
    assert "split dev: 1 photos (every second photo" in result.stdout
    assert "Foils told from true captions" in result.stdout
    lines = (data / "images.jsonl").read_text().splitlines()
    (data / "images.jsonl").write_text(lines[0])
    assert "--all" in refused(run("matcher", data))


def test_matcher_needs_one(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: TinyBundle) -> None:
        raise InvalidRequestError("the bundle tiny has no matcher")

    monkeypatch.setattr(TinyBundle, "load_photo_matcher", load)
    for photo in data.glob("*.png"):
        photo.unlink()  # it is told before the photos are read
    assert "has no matcher" in refused(run("matcher", data))


def test_mistakes_are_one_clear_error(data: Path) -> None:
    assert "ends in .md or .html or .json" in refused(run("captions", data, "--output", "report.pdf"))
    assert "no photo in split 'test'" in refused(run("captions", data, "--split", "test"))
    assert "no reference caption in fr" in refused(run("retrieval", data, "-l", "fr"))
    assert run("captions", data, "--retrieval", "sometimes").exit_code == 2
    assert run("captions", data, "--kinds", " , ").exit_code == 2
    for numbers in ("7-0", "x", "99", "1,,2", ""):
        assert "such as 0-7 or 1,2,4" in refused(run("captions", data, "--neighbours", numbers))


def test_languages_are_those_of_bundle_and_captions() -> None:
    references = {code: References(code, ("human",), {"1": ["x"]}) for code in ("en", "pt", "xx")}
    assert list(select_languages(references, None, ["pt", "en", "de"])) == ["en", "pt"]
    assert list(select_languages(references, ["pt-BR", "en", "pt"], ["pt", "en", "de"])) == ["pt", "en"]
    with pytest.raises(UnknownLanguageError):
        select_languages(references, ["ja"], ["pt", "en", "de"])
    with pytest.raises(InvalidRequestError, match="the bundle writes de"):
        select_languages(references, None, ["de"])
