"""What `paellera evaluate captions` does: writes captions or reads them, scores them, publishes reports."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.caption_examples import pick_examples
from evaluation.caption_outputs import read_outputs, save_outputs
from evaluation.caption_page import caption_page
from evaluation.caption_plot import draw_captions
from evaluation.caption_report import CaptionRunDescription, caption_report, curve_modes
from evaluation.captions import (
    MODES,
    WITH,
    WITHOUT,
    LanguageResult,
    Mode,
    WrittenCaption,
    mode_of,
    score_written,
    write_captions,
)
from evaluation.clip_score import caption_similarities
from evaluation.published_tokenisation import published_tokeniser_for
from evaluation.references import Photo, Progress, References
from evaluation.report import HTML, MARKDOWN, Report, write_atomically
from evaluation.tokenisation import Tokeniser, tokeniser_for
from retrieval.errors import InvalidRequestError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.captioner import Captioner

MOST_NEIGHBOURS = 32

TOKENISERS: dict[str, Callable[[str], Tokeniser]] = {
    "published": published_tokeniser_for,
    "plain": tokeniser_for,
}


@dataclass(frozen=True)
class CaptionRun:
    """What is asked for, checked."""

    modes: tuple[Mode, ...]
    beams: int
    batch_size: int
    tokenisers: str  # of TOKENISERS
    examples: int  # best and worst ones of each language in the HTML report
    split: str
    rejected: tuple[str, ...] = ()


def modes_of(retrieval: str, neighbours: str | None, default: int) -> tuple[Mode, ...]:
    """Modes to run: `retrieval` is with, without or both; `neighbours` adds numbers such as "0-7" or "1,2,4".

    Args:
        default: the bundle's own number, which is the mode `with`.

    Raises:
        InvalidRequestError: the numbers cannot be read, or are too large.
    """
    modes = [mode for mode in MODES if retrieval in ("both", mode)]
    for part in (neighbours or "").replace(" ", "").split(",") if neighbours is not None else []:
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if (
            not found
            or int(found[2] or found[1]) > MOST_NEIGHBOURS
            or int(found[2] or found[1]) < int(found[1])
        ):
            raise InvalidRequestError(
                f"--neighbours {neighbours}: write numbers up to {MOST_NEIGHBOURS}, such as 0-7 or 1,2,4"
            )
        for number in range(int(found[1]), int(found[2] or found[1]) + 1):
            modes.append(WITH if number == default else mode_of(number))
    known = [mode for mode in MODES if mode in modes]
    return tuple(dict.fromkeys([*known, *modes]))


def check_packages(paths: Sequence[Path], languages: Sequence[str], tokenisers: str) -> None:
    """Raise InvalidRequestError if a package is missing that will be needed; asked before hours of work."""
    for package in ("sacrebleu", "py3langid", *(["matplotlib"] if _pictured(paths) else [])):
        if find_spec(package) is None:
            raise InvalidRequestError(
                f"scores and plots of captions need {package}: pip install 'paellera[evaluation]'"
            )
    for language in languages:
        TOKENISERS[tokenisers](language)


def measure(
    bundle: "Bundle",
    captioner: "Captioner",
    photos: Sequence[Photo],
    references: Mapping[str, References],
    run: CaptionRun,
    *,
    from_outputs: Path | None,
    outputs: Path | None,
    reports: Sequence[Path],
    progress: Progress,
) -> Report:
    """Write captions in all modes, or take those of a file; score them; write the reports.

    Raises:
        InvalidRequestError: a file cannot be read or written, or there is nothing to score.
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    if from_outputs is not None:
        image_ids = {photo.image_id for photo in photos}
        written = read_outputs(from_outputs, image_ids, set(references), run.modes)
    else:
        written = list(_write(captioner, photos, list(references), run, progress))
    with progress("embedding photos", photos) as advance:
        similarities = caption_similarities(captioner, captioner, photos, written, advance=advance)
    results = score_written(
        written, references, tokeniser=TOKENISERS[run.tokenisers], similarities=similarities
    )
    # How captions of a file were written is not known.
    used = from_outputs is None and set(run.modes) != {WITHOUT}
    description = CaptionRunDescription(
        captioner.bundle_name,
        captioner.revision,
        captioner.datastore.version if used else None,
        run.split,
        len(photos),
        run.beams if from_outputs is None else None,
        bundle.manifest.generation.neighbours,
        run.tokenisers,
        bundle.manifest.embedder.id,
        run.rejected,
        None if from_outputs is None else from_outputs.name,
    )
    if outputs is not None:
        save_outputs(outputs, written, results)
    report = caption_report(results, description)
    _publish(report, results, written, photos, run, description, reports)
    return report


def _write(
    captioner: "Captioner",
    photos: Sequence[Photo],
    languages: Sequence[str],
    run: CaptionRun,
    progress: Progress,
) -> Iterator[WrittenCaption]:
    for mode in run.modes:
        title = f"captioning {mode} retrieval" if mode in MODES else f"captioning, {mode}"
        with progress(title, photos) as advance:
            yield from write_captions(
                captioner,
                photos,
                languages,
                mode,
                beams=run.beams,
                batch_size=run.batch_size,
                advance=advance,
            )


def _publish(
    report: Report,
    results: Sequence[LanguageResult],
    written: Sequence[WrittenCaption],
    photos: Sequence[Photo],
    run: CaptionRun,
    description: CaptionRunDescription,
    paths: Sequence[Path],
) -> None:
    picture = b""
    if _pictured(paths):
        picture = draw_captions(results, curve_modes(results, description.neighbours))
    for path in paths:
        if path.suffix == HTML:
            examples = pick_examples(results, written, photos, run.examples)
            write_atomically(path, caption_page(report, picture, examples))
        elif path.suffix == MARKDOWN:
            beside = path.with_suffix(".png")
            write_atomically(beside, picture)
            replace(report, figure=("CIDEr-D by language and by number of neighbours", beside.name)).write(
                path
            )
        else:
            report.write(path)


def _pictured(paths: Sequence[Path]) -> bool:
    return any(path.suffix in (MARKDOWN, HTML) for path in paths)
