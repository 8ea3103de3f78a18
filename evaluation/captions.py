"""Caption the photos of a data set and score what was written, per language, with and without retrieval.

It drives a captioner as the service does, all languages of a photo in one call. It does not know where the
captioner comes from; the command line opens the bundle.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from evaluation.references import Photo, References, open_photo
from evaluation.report import Report, ReportTable, write_atomically
from evaluation.scores import CaptionScores, score_captions
from models.captions import Caption, CaptionResult, CaptionSettings

Mode = Literal["with", "without"]  # retrieval
MODES: tuple[Mode, ...] = ("with", "without")


class WritesCaptions(Protocol):
    """The part of `models.captioner.Captioner` that is evaluated."""

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult: ...


@dataclass(frozen=True)
class WrittenCaption:
    """One output, with all that is needed to look at it later."""

    image_id: str
    file: str
    retrieval: Mode
    caption: Caption


@dataclass(frozen=True)
class LanguageResult:
    """The scores of one language in each mode that was run, in the order of MODES."""

    references: References
    scores: Mapping[Mode, CaptionScores]


@dataclass(frozen=True)
class RunDescription:
    """What a report says of the run beside its scores."""

    bundle: str
    revision: str
    datastore: str | None  # version; None: captioned without any
    split: str
    photos: int
    beams: int


def write_captions(
    captioner: WritesCaptions,
    photos: Sequence[Photo],
    languages: Sequence[str],
    mode: Mode,
    *,
    beams: int = 3,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda photos: None,
) -> list[WrittenCaption]:
    """Caption every photo in every language, photo by photo in the order given.

    Args:
        mode: `with` takes the bundle's default number of neighbours, `without` none.
        batch_size: photos per call of the captioner.
        advance: told the number of photos done after each call.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    settings = CaptionSettings(
        languages=tuple(languages), beams=beams, neighbours=None if mode == "with" else 0
    )
    written: list[WrittenCaption] = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        result = captioner.caption([open_photo(photo) for photo in batch], settings)
        for photo, image in zip(batch, result.images, strict=True):
            for caption in image.captions:
                written.append(WrittenCaption(photo.image_id, photo.path.name, mode, caption))
        advance(len(batch))
    return written


def score_written(
    written: Sequence[WrittenCaption], references: Mapping[str, References]
) -> list[LanguageResult]:
    """Score the outputs of a run, language by language in the order of `references`.

    Photos that have no reference in a language do not count in it.

    Raises:
        InvalidRequestError: there is no output to hold against the references of some language.
    """
    hypotheses: dict[tuple[str, Mode], dict[str, str]] = {}
    for output in written:
        key = (output.caption.language, output.retrieval)
        hypotheses.setdefault(key, {})[output.image_id] = output.caption.text
    modes = [mode for mode in MODES if any(output.retrieval == mode for output in written)]
    return [
        LanguageResult(
            language_references,
            {
                mode: score_captions(
                    hypotheses.get((language, mode), {}), language_references.texts, language
                )
                for mode in modes
            },
        )
        for language, language_references in references.items()
    ]


def save_outputs(path: Path, written: Sequence[WrittenCaption], results: Sequence[LanguageResult]) -> None:
    """Write every output with its neighbours, references and own CIDEr-D, a JSON object a line.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    by_language = {result.references.language: result for result in results}
    lines = []
    for output in written:
        result = by_language[output.caption.language]
        row = {
            "image_id": output.image_id,
            "file": output.file,
            "language": output.caption.language,
            "retrieval": output.retrieval,
            "text": output.caption.text,
            "confidence": output.caption.confidence,
            "cider_d": result.scores[output.retrieval].image_cider_d.get(output.image_id),
            "neighbours": [asdict(neighbour) for neighbour in output.caption.neighbours],
            "references": list(result.references.texts.get(output.image_id, ())),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines))


def caption_report(results: Sequence[LanguageResult], run: RunDescription) -> Report:
    """The report of a run. Languages without a reference by people have a table and a mean of their own."""
    people = [result for result in results if result.references.by_people]
    machine = [result for result in results if not result.references.by_people]
    tables = []
    if people:
        tables.append(_cider_table("CIDEr-D × 100, references by people", people))
    if machine:
        tables.append(_cider_table("CIDEr-D × 100, references by machine translation only", machine))
    tables.append(_text_table(results))
    signatures: dict[str, list[str]] = {}
    for result in results:
        for scores in list(result.scores.values())[:1]:
            signatures.setdefault(scores.signature, []).append(scores.language)
    return Report(
        title="Caption evaluation",
        facts=[
            f"bundle {run.bundle}, revision {run.revision}",
            f"datastore {run.datastore}" if run.datastore else "no datastore",
            f"split {run.split}: {run.photos} photos; beams {run.beams}",
            *(f"{', '.join(languages)}: `{signature}`" for signature, languages in signatures.items()),
        ],
        tables=tables,
        document={
            "evaluation": "captions",
            **asdict(run),
            "mean_cider_d": {"people": _means(people), "machine": _means(machine)},
            "languages": [_language_document(result) for result in results],
        },
    )


def _cider_table(title: str, results: Sequence[LanguageResult]) -> ReportTable:
    modes = list(results[0].scores)
    both = len(modes) == len(MODES)
    header = ["language", "references", "photos", "per photo", *(f"{mode} retrieval" for mode in modes)]
    rows = []
    for result in results:
        first = result.scores[modes[0]]
        values = {mode: scores.cider_d for mode, scores in result.scores.items()}
        rows.append(
            [
                result.references.language,
                ", ".join(result.references.kinds),
                str(first.images),
                f"{first.references_per_image:.2f}",
                *_cider_cells(values),
            ]
        )
    rows.append(["mean", "", "", "", *_cider_cells(_means(results))])
    return ReportTable(title, [*header, "gain"] if both else header, rows)


def _cider_cells(values: Mapping[Mode, float]) -> list[str]:
    cells = [f"{value:.1f}" for value in values.values()]
    return [*cells, f"{values['with'] - values['without']:+.1f}"] if len(cells) == len(MODES) else cells


def _text_table(results: Sequence[LanguageResult]) -> ReportTable:
    return ReportTable(
        "The texts themselves",
        ["language", "retrieval", "distinct-2", "mean length", "loops", "in script"],
        [
            [
                scores.language,
                mode,
                f"{scores.distinct_2:.3f}",
                f"{scores.mean_length:.1f}",
                f"{scores.loops:.1%}",
                f"{scores.script:.1%}",
            ]
            for result in results
            for mode, scores in result.scores.items()
        ],
    )


def _means(results: Sequence[LanguageResult]) -> dict[Mode, float]:
    """Mean CIDEr-D over languages, for each mode that was run."""
    return {
        mode: sum(result.scores[mode].cider_d for result in results) / len(results)
        for mode in (results[0].scores if results else ())
    }


def _language_document(result: LanguageResult) -> dict[str, Any]:
    first = next(iter(result.scores.values()))
    return {
        "language": result.references.language,
        "kinds": list(result.references.kinds),
        "by_people": result.references.by_people,
        "photos": first.images,
        "references_per_photo": first.references_per_image,
        "signature": first.signature,
        "retrieval": {
            mode: {
                "cider_d": scores.cider_d,
                "distinct_2": scores.distinct_2,
                "mean_length": scores.mean_length,
                "loops": scores.loops,
                "script": scores.script,
            }
            for mode, scores in result.scores.items()
        },
    }
