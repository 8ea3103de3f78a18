"""A comparison as a picture: score against trained parameters and against time, a row of axes each family."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.fusion import Comparison, Standing
from retrieval.files import replacing

# Okabe and Ito's colours, told apart with any colour vision; the yellow is too pale for thin lines on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_MARKERS = "osD^vPX*"  # as many as make every pair of colour and marker different for 56 systems


def draw_comparison(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw a PNG. The first mode has filled markers, the others empty ones; bars are standard deviations.

    Dashed lines are what the systems are held against. A family without a finished run is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [(comparison, comparison.standings()) for comparison in comparisons]
    drawn = [(comparison, standings) for comparison, standings in found if standings]
    figure = Figure(figsize=(11, 4.2 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(drawn), 1, squeeze=False)[:, 0]
    for part, (comparison, standings) in zip(parts, drawn, strict=True):
        _draw_family(part, comparison, standings)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw_family(part: Any, comparison: Comparison, standings: Sequence[Standing]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    family = comparison.family
    by_size, by_time = part.subplots(1, 2, sharey=True)
    for number, standing in enumerate(standings):
        for place, mode in enumerate(family.modes):
            score = standing.score(mode)
            colour = _COLOURS[number % len(_COLOURS)]
            style = {
                "fmt": _MARKERS[number % len(_MARKERS)],
                "color": colour,
                "markerfacecolor": "white" if place else colour,
                "markersize": 8,
                "capsize": 3,
                "linewidth": 1.2,
                "label": None if place else standing.system.name,
            }
            by_size.errorbar(standing.system.parameters / 1e6, score.mean, score.deviation, **style)
            if mode in standing.milliseconds:
                by_time.errorbar(standing.milliseconds[mode], score.mean, score.deviation, **style)
    for axes in (by_size, by_time):
        axes.grid(alpha=0.3)
        for held_against in comparison.reference().values():
            axes.axhline(held_against, color="grey", linestyle="--", linewidth=1)
    by_size.set(xscale="log", xlabel="trained parameters, millions", ylabel=family.measure)
    by_size.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    by_size.xaxis.set_major_formatter("{x:g}")
    by_size.xaxis.set_minor_formatter(NullFormatter())
    by_time.set(xlabel="milliseconds per image")
    by_time.set_xlim(left=0)
    first, *others = family.modes.values()
    fills = [f"filled: {first}", *(f"empty: {title}" for title in others), f"dashed: {family.reference}"]
    part.suptitle(f"{family.name.capitalize()} ({'; '.join(fills)})", fontsize="medium")
    handles, names = by_size.get_legend_handles_labels()
    part.legend(handles, names, loc="outside right center", frameon=False)
