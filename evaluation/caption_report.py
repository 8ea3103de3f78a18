"""The findings of a caption evaluation as tables and as a JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.bootstrap import COVERAGE, RESAMPLES, Interval
from evaluation.caption_means import GroupMean, group_means, mean_of
from evaluation.captions import MODES, WITH, WITHOUT, LanguageResult, Mode, neighbours_of
from evaluation.report import Report, ReportTable
from evaluation.run_description import RunDescription

_DASH = "–"


@dataclass(frozen=True)
class CaptionRunDescription(RunDescription):
    neighbours: int | None = None  # in the prompt with retrieval; None: not known
    tokenisers: str = "plain"
    embedder: str | None = None  # of CLIPScore
    rejected: tuple[str, ...] = ()  # rows of the data set that were left out
    captions: str | None = None  # the file they were read from; None: this run wrote them


def caption_report(results: Sequence[LanguageResult], run: CaptionRunDescription) -> Report:
    """The report of a run. Languages without a reference by people have a table and a mean of their own."""
    people = [result for result in results if result.references.by_people]
    machine = [result for result in results if not result.references.by_people]
    means = {"people": people, "machine": machine}
    own_means = {name: mean_of("mean", found) for name, found in means.items() if found}
    groups = group_means(results)
    tables = []
    if people:
        title = "CIDEr-D × 100, references by people"
        tables.append(_cider_table(title, people, own_means["people"]))
    if machine:
        title = "CIDEr-D × 100, references by machine translation only"
        tables.append(_cider_table(title, machine, own_means["machine"]))
    if groups:
        tables.append(_group_table(groups))
    curve = curve_modes(results, run.neighbours)
    if curve:
        tables.append(_curve_table(results, curve))
    tables += [_other_table(results), _language_table(results), _text_table(results)]
    tables.append(_length_table(results))
    return Report(
        title="Caption evaluation",
        facts=_facts(results, run),
        tables=tables,
        document={
            "evaluation": "captions",
            **asdict(run),
            "rejected": list(run.rejected),
            "mean_cider_d": {
                name: {mode: interval.value for mode, interval in own_means[name].modes.items()}
                if name in own_means
                else {}
                for name in means
            },
            "groups": [_group_document(mean) for mean in [*own_means.values(), *groups]],
            "languages": [_language_document(result) for result in results],
        },
    )


def curve_modes(results: Sequence[LanguageResult], default: int | None) -> dict[int, Mode]:
    """Number of neighbours → mode, ascending; empty if no other number than the bundle's was run."""
    modes = {mode for result in results for mode in result.scores}
    found = {neighbours_of(mode) or 0: mode for mode in modes if mode not in MODES}
    if not found:
        return {}
    if WITHOUT in modes:
        found[0] = WITHOUT
    if WITH in modes and default is not None:
        found[default] = WITH
    return dict(sorted(found.items()))


def _facts(results: Sequence[LanguageResult], run: CaptionRunDescription) -> list[str]:
    signatures: dict[str, list[str]] = {}
    for result in results:
        mode = next(iter(result.scores))
        signatures.setdefault(result.scores[mode].signature, []).append(result.references.language)
        corpus = result.others[mode].corpus
        signatures.setdefault(corpus.bleu_signature, []).append(result.references.language)
        signatures.setdefault(corpus.chrf_signature, []).append(result.references.language)
    embedder = f"; CLIPScore by the embedder {run.embedder}" if run.embedder else ""
    datastore = f"datastore {run.datastore}" if run.datastore else "no datastore"
    beams = "" if run.beams is None else f"; beams {run.beams}"
    facts = [
        f"bundle {run.bundle}, revision {run.revision}",
        datastore if run.captions is None else f"captions read from {run.captions}",
        f"split {run.split}: {run.photos} photos{beams}{embedder}",
        f"brackets: {COVERAGE:.0%} intervals of {RESAMPLES:,} bootstrap resamples of the photos",
        *(f"{', '.join(languages)}: `{signature}`" for signature, languages in signatures.items()),
    ]
    if run.rejected:
        named = "; ".join(run.rejected[:5]) + ("; …" if len(run.rejected) > 5 else "")
        facts.append(f"{len(run.rejected)} rows of the data set were left out: {named}")
    return facts


def _cider_table(title: str, results: Sequence[LanguageResult], mean: GroupMean) -> ReportTable:
    modes = [mode for mode in MODES if mode in mean.modes] or list(mean.modes)
    header = ["language", "references", "photos", "per photo", *(f"{mode} retrieval" for mode in modes)]
    rows = []
    for result in results:
        first = next(iter(result.scores.values()))
        rows.append(
            [
                result.references.language,
                ", ".join(result.references.kinds),
                str(first.images),
                f"{first.references_per_image:.2f}",
                *_mean_cells(mean_of("", [result]), modes),
            ]
        )
    rows.append(["mean", "", "", "", *_mean_cells(mean, modes)])
    return ReportTable(title, [*header, "gain"] if mean.gain else header, rows)


def _group_table(groups: Sequence[GroupMean]) -> ReportTable:
    modes = [mode for mode in MODES if mode in groups[0].modes] or list(groups[0].modes)
    header = ["languages", *(f"{mode} retrieval" for mode in modes), *(["gain"] if groups[0].gain else [])]
    return ReportTable(
        "CIDEr-D × 100, means of published groups of languages, whoever wrote the references",
        header,
        [[mean.name, *_mean_cells(mean, modes)] for mean in groups],
    )


def _mean_cells(mean: GroupMean, modes: Sequence[Mode]) -> list[str]:
    cells = [_interval(mean.modes[mode]) for mode in modes]
    return [*cells, _interval(mean.gain, sign="+")] if mean.gain else cells


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def _curve_table(results: Sequence[LanguageResult], curve: Mapping[int, Mode]) -> ReportTable:
    mean = mean_of("mean", results)
    rows = [
        [result.references.language, *(f"{result.scores[mode].cider_d:.1f}" for mode in curve.values())]
        for result in results
    ]
    rows.append(["mean", *(f"{mean.modes[mode].value:.1f}" for mode in curve.values())])
    return ReportTable(
        "CIDEr-D × 100 by the number of retrieved captions", ["language", *(f"k = {k}" for k in curve)], rows
    )


def _shown(result: LanguageResult) -> list[Mode]:
    """Modes with rows of their own: with and without retrieval, else all there are."""
    return [mode for mode in result.scores if mode in MODES] or list(result.scores)


def _other_table(results: Sequence[LanguageResult]) -> ReportTable:
    rows = []
    for result in results:
        for mode in _shown(result):
            other = result.others[mode]
            rows.append(
                [
                    result.references.language,
                    mode,
                    f"{other.corpus.bleu:.1f}",
                    f"{other.corpus.chrf:.1f}",
                    f"{100 * result.scores[mode].rouge_l:.1f}",
                    _DASH if other.clip_score is None else f"{other.clip_score:.1f}",
                ]
            )
    return ReportTable(
        "Other agreement with references, and with the photo",
        ["language", "retrieval", "BLEU-4", "chrF", "ROUGE-L × 100", "CLIPScore × 100"],
        rows,
    )


def _language_table(results: Sequence[LanguageResult]) -> ReportTable:
    return ReportTable(
        "Is it the language asked for?",
        ["language", "retrieval", "in language", "references in language", "in script"],
        [
            [
                result.references.language,
                mode,
                _share(result.others[mode].in_language),
                _share(result.others[mode].references_in_language),
                f"{result.scores[mode].script:.1%}",
            ]
            for result in results
            for mode in _shown(result)
        ],
    )


def _share(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1%}"


def _text_table(results: Sequence[LanguageResult]) -> ReportTable:
    return ReportTable(
        "The texts themselves",
        ["language", "retrieval", "distinct-1", "distinct-2", "loops"],
        [
            [
                result.references.language,
                mode,
                f"{result.scores[mode].distinct_1:.3f}",
                f"{result.scores[mode].distinct_2:.3f}",
                f"{result.scores[mode].loops:.1%}",
            ]
            for result in results
            for mode in _shown(result)
        ],
    )


def _length_table(results: Sequence[LanguageResult]) -> ReportTable:
    rows = []
    for result in results:
        for mode in _shown(result):
            lengths = result.scores[mode].lengths
            rows.append(
                [
                    result.references.language,
                    mode,
                    f"{lengths.mean:.1f} ± {lengths.deviation:.1f}",
                    f"{lengths.shortest}, {lengths.median:g}, {lengths.longest}",
                    f"{lengths.references:.1f}",
                ]
            )
    header = ["language", "retrieval", "mean ± sd", "shortest, median, longest", "references' mean"]
    return ReportTable("Lengths in tokens", header, rows)


def _group_document(mean: GroupMean) -> dict[str, Any]:
    return {
        "group": mean.group,
        "languages": list(mean.languages),
        "of": mean.of,
        "cider_d": {mode: asdict(interval) for mode, interval in mean.modes.items()},
        "gain": asdict(mean.gain) if mean.gain else None,
    }


def _language_document(result: LanguageResult) -> dict[str, Any]:
    first = next(iter(result.scores.values()))
    intervals = mean_of("", [result])
    return {
        "language": result.references.language,
        "kinds": list(result.references.kinds),
        "by_people": result.references.by_people,
        "photos": first.images,
        "references_per_photo": first.references_per_image,
        "signature": first.signature,
        "gain": asdict(intervals.gain) if intervals.gain else None,
        "retrieval": {
            mode: {
                "cider_d": scores.cider_d,
                "cider_d_interval": [intervals.modes[mode].low, intervals.modes[mode].high],
                "rouge_l": scores.rouge_l,
                "distinct_1": scores.distinct_1,
                "distinct_2": scores.distinct_2,
                "mean_length": scores.mean_length,
                "lengths": asdict(scores.lengths),
                "loops": scores.loops,
                "script": scores.script,
                **asdict(result.others[mode]),
            }
            for mode, scores in result.scores.items()
        },
    }
