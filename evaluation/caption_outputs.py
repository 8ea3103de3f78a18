"""Captions on disk, one a line: to be read by people, and to be scored again without writing them again."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.captions import MODES, LanguageResult, Mode, WrittenCaption
from evaluation.json_lines import read_rows
from evaluation.report import write_atomically
from models.captions import Caption
from retrieval.datastore import Neighbour
from retrieval.errors import InvalidRequestError


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


def read_outputs(
    path: Path, image_ids: Collection[str], languages: Collection[str], modes: Collection[Mode] | None = None
) -> list[WrittenCaption]:
    """The captions of some photos, languages and modes that `save_outputs` wrote, or another program did.

    A row needs `image_id`, `language` and `text`. Without `retrieval` it counts as written with it.

    Raises:
        InvalidRequestError: the file is missing or malformed, has no caption of these, or of other photos in
            one mode than in another.
    """
    written = []
    photos: dict[str, set[str]] = {}  # mode → image ids
    for number, row in read_rows(path):
        try:
            image_id, language, text = str(row["image_id"]), str(row["language"]), str(row["text"])
            mode = str(row.get("retrieval", MODES[0]))
            if mode not in MODES and not (mode.startswith("k=") and mode[2:].isdecimal()):
                raise ValueError(f"retrieval is '{mode}' and not with, without or k=N")
            neighbours = tuple(map(_neighbour, row.get("neighbours", ())))
            confidence = float(row.get("confidence") or 0.0)
        except KeyError as error:
            raise InvalidRequestError(f"{path}:{number}: the row has no {error}") from error
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"{path}:{number}: {error}") from error
        if image_id in image_ids and language in languages and (modes is None or mode in modes):
            caption = Caption(language, text, confidence, neighbours=neighbours)
            written.append(WrittenCaption(image_id, str(row.get("file", "")), mode, caption))
            photos.setdefault(mode, set()).add(image_id)
    if not written:
        runs = f" and the modes {', '.join(modes)}" if modes else ""
        raise InvalidRequestError(
            f"{path} has no caption of these photos in {', '.join(sorted(languages))}{runs}"
        )
    if len({frozenset(found) for found in photos.values()}) > 1:
        counts = ", ".join(f"{mode}: {len(found)}" for mode, found in photos.items())
        raise InvalidRequestError(
            f"{path} has captions of other photos in one mode than in another ({counts}), and scores of "
            "different photos cannot be compared: set --limit to those of all modes, or --retrieval to one"
        )
    return written


def _neighbour(row: Mapping[str, Any]) -> Neighbour:
    """Raises KeyError, TypeError or ValueError if the row is none."""
    return Neighbour(
        str(row["id"]),
        str(row["text"]),
        str(row["language"]),
        float(row["score"]),
        float(row.get("handicap", 0.0)),
    )
