"""The report of `paellera evaluate matcher`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.bootstrap import RESAMPLES, Interval
from evaluation.calibration import BINS
from evaluation.matcher import RERANKED, Judged, MatcherResult
from evaluation.report import Report, ReportTable
from evaluation.retrieval import CUTOFFS


@dataclass(frozen=True)
class MatcherRun:
    """What a report says of the run beside its scores."""

    bundle: str
    revision: str
    embedder: str
    split: str
    photos: int
    every_photo: bool  # also those that the matcher's scale was fitted on
    match_weight: float
    seed: int


def matcher_report(result: MatcherResult, run: MatcherRun) -> Report:
    """Three tables: a row for each language, and one for all together."""
    named: list[tuple[str, str, Judged]] = [
        (language.language, ", ".join(language.kinds), language.scores) for language in result.languages
    ]
    if len(named) > 1:
        named.append(("all", "", result.together))
    which = "all photos" if run.every_photo else "every second photo, those the matcher was not fitted on"
    return Report(
        title="Matcher evaluation",
        facts=[
            f"bundle {run.bundle}, revision {run.revision}",
            f"embedder {run.embedder}",
            f"split {run.split}: {run.photos} photos ({which})",
            f"the embedder's best {RERANKED} re-ranked by cosine + {run.match_weight:g} · logit",
            f"brackets: 95 % intervals, {RESAMPLES} bootstrap resamples of the photos; seed {run.seed}",
        ],
        tables=[_retrieval(named), _foils(named), _calibration(named)],
        document={
            "evaluation": "matcher",
            **asdict(run),
            "reranked": RERANKED,
            "resamples": RESAMPLES,
            "bins": BINS,
            "languages": [
                {
                    "language": language.language,
                    "kinds": language.kinds,
                    "by_people": language.by_people,
                    **_document(language.scores),
                }
                for language in result.languages
            ],
            "all": _document(result.together),
            "reliability": {
                "counts": result.diagram.counts.tolist(),
                "confidence": [_number(value) for value in result.diagram.confidence.tolist()],
                "accuracy": [_number(value) for value in result.diagram.accuracy.tolist()],
            },
        },
    )


def _retrieval(named: Sequence[tuple[str, str, Judged]]) -> ReportTable:
    header = ["language", "references", "photos", "captions", *(f"recall@{k}" for k in CUTOFFS), "gain"]
    rows = []
    for language, kinds, scores in named:
        found = scores.retrieval
        recall = [f"{100 * found.before[k]:.1f} → {100 * found.after[k]:.1f}" for k in CUTOFFS]
        gain = _percent(found.gain, "+.1f")
        rows.append([language, kinds, str(found.photos), str(found.captions), *recall, gain])
    title = "Image → caption recall in %, before → after re-ranking; gain: of recall@1, in points"
    return ReportTable(title, header, rows)


def _foils(named: Sequence[tuple[str, str, Judged]]) -> ReportTable:
    header = ["language", "pairs", "matcher", "embedder alone"]
    rows = [
        [language, "0", "", ""]
        if scores.foils is None
        else [
            language,
            str(scores.foils.pairs),
            _percent(scores.foils.matcher, ".1f"),
            _percent(scores.foils.embedder, ".1f"),
        ]
        for language, _, scores in named
    ]
    return ReportTable("Foils told from true captions, in %", header, rows)


def _calibration(named: Sequence[tuple[str, str, Judged]]) -> ReportTable:
    header = [
        "language",
        "pairs",
        "ECE",
        "mean confidence",
        "accuracy at 0.5",
        "Brier score",
        "area under ROC",
    ]
    rows = []
    for language, _, scores in named:
        found = scores.calibration
        shares = [f"{share:.1%}" for share in (found.ece, found.mean_confidence, found.accuracy)]
        area = "" if math.isnan(found.auc) else f"{found.auc:.3f}"
        rows.append([language, str(found.pairs), *shares, f"{found.brier:.3f}", area])
    return ReportTable("Calibration of the confidence", header, rows)


def _percent(interval: Interval, style: str) -> str:
    value, low, high = (format(100 * share, style) for share in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _document(scores: Judged) -> dict[str, Any]:
    document = asdict(scores)
    for when in ("before", "after"):
        document["retrieval"][when] = {str(k): share for k, share in document["retrieval"][when].items()}
    document["calibration"]["auc"] = _number(scores.calibration.auc)
    return document


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON knows no nan
