"""A comparison as tables and as a JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evaluation.fusion import Comparison, Standing
from evaluation.report import Report, ReportTable

FIGURE = "fusion.png"


def fusion_report(comparisons: Sequence[Comparison], seeds: Sequence[int]) -> Report:
    """The report of all families of which some run is finished."""
    finished = [(comparison, comparison.standings()) for comparison in comparisons]
    finished = [(comparison, standings) for comparison, standings in finished if standings]
    facts = [
        f"{comparison.family.name}: {fact}" if len(finished) > 1 else fact
        for comparison, _ in finished
        for fact in comparison.facts()
    ]
    listed = ", ".join(map(str, seeds))
    spread = (
        f"seeds {listed}: the mean, ± the sample standard deviation" if len(seeds) > 1 else f"seed {listed}"
    )
    return Report(
        title="Ways to join image and text, compared",
        facts=[*facts, spread],
        tables=[_table(comparison, standings) for comparison, standings in finished],
        document={
            "evaluation": "fusion",
            "seeds": list(seeds),
            "families": [_document(comparison, standings) for comparison, standings in finished],
        },
        figure=("score against trained parameters and against time", FIGURE),
    )


def _table(comparison: Comparison, standings: Sequence[Standing]) -> ReportTable:
    family = comparison.family
    traits = list(dict.fromkeys(trait for standing in standings for trait in standing.system.traits))
    header = [
        "system",
        *traits,
        "parameters",
        *family.modes.values(),
        *(f"ms {title}" for title in family.modes.values()),
        "runs",
    ]
    rows = [
        [
            standing.system.name,
            *(standing.system.traits.get(trait, "–") for trait in traits),
            f"{standing.system.parameters:,}",
            *(str(standing.score(mode)) for mode in family.modes),
            *(_milliseconds(standing.milliseconds, mode) for mode in family.modes),
            str(len(standing.outcomes)),
        ]
        for standing in standings
    ]
    return ReportTable(f"{family.name.capitalize()}: {family.measure}", header, rows)


def _milliseconds(times: Mapping[str, float], mode: str) -> str:
    return f"{times[mode]:.1f}" if mode in times else "–"


def _document(comparison: Comparison, standings: Sequence[Standing]) -> dict[str, Any]:
    family = comparison.family
    return {
        "family": family.name,
        "measure": family.measure,
        "modes": dict(family.modes),
        "facts": comparison.facts(),
        "reference": {"name": family.reference, "scores": comparison.reference()},
        "systems": [
            {
                "system": standing.system.name,
                "traits": dict(standing.system.traits),
                "parameters": standing.system.parameters,
                "scores": {mode: asdict(standing.score(mode)) for mode in family.modes},
                "milliseconds": dict(standing.milliseconds),
                "runs": [
                    {
                        "seed": seed,
                        "scores": dict(outcome.scores),
                        "details": dict(outcome.details),
                        "seconds": outcome.seconds,
                    }
                    for seed, outcome in standing.outcomes.items()
                ],
            }
            for standing in standings
        ],
    }
