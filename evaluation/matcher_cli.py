"""What `paellera evaluate matcher` does: measures, and draws the reliability diagram beside the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.foils import load_lexicons
from evaluation.matcher import evaluate_matcher
from evaluation.matcher_plot import draw_reliability
from evaluation.matcher_report import MatcherRun, matcher_report
from evaluation.references import Photo, Progress, References
from evaluation.report import Report
from retrieval.errors import InvalidRequestError

if TYPE_CHECKING:
    from models.bundle import Bundle

_SEED = 0  # of the drawn pairs and of the resampling


def unseen_photos(photos: Sequence[Photo], split: str) -> Sequence[Photo]:
    """Every second photo: the matcher's scale was fitted on those at even positions of the split.

    Raises:
        InvalidRequestError: none is left.
    """
    if len(photos) < 2:
        raise InvalidRequestError(f"split '{split}' has only one photo: take it with --all")
    return photos[1::2]


def measure(
    bundle: "Bundle",
    photos: Sequence[Photo],
    references: Mapping[str, References],
    *,
    split: str,
    every_photo: bool,
    batch_size: int,
    outputs: Sequence[Path],
    progress: Progress,
) -> Report:
    """Evaluate a bundle's matcher and write the reports, each with a picture of the same name.

    Raises:
        InvalidRequestError: the bundle has no matcher, or a file cannot be written.
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    if outputs and find_spec("matplotlib") is None:
        raise InvalidRequestError("beside a report stands a picture: pip install 'paellera[train]'")
    weight = bundle.manifest.generation.match_weight
    matcher = bundle.load_photo_matcher()
    result = evaluate_matcher(
        matcher,
        matcher,
        photos,
        references,
        load_lexicons(),
        match_weight=weight,
        batch_size=batch_size,
        seed=_SEED,
        progress=progress,
    )
    run = MatcherRun(
        bundle.manifest.name,
        bundle.manifest.revision,
        bundle.manifest.embedder.id,
        split,
        len(photos),
        every_photo,
        weight,
        _SEED,
    )
    report = matcher_report(result, run)
    for path in outputs:
        picture = path.with_suffix(".png")
        try:
            draw_reliability(result.diagram, result.together.calibration.ece, picture)
        except OSError as error:
            raise InvalidRequestError(f"cannot write {picture}: {error.strerror}") from error
        replace(report, figure=("Reliability diagram", picture.name)).write(path)
    return report
