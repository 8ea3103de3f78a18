"""The scores of a caption evaluation as a picture: each language with its interval, and curves over k."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.caption_means import mean_of
from evaluation.captions import MODES, WITH, LanguageResult, Mode

# Of Okabe and Ito's colours, told apart with any colour vision.
_COLOURS = {WITH: "#0072B2", "without": "#E69F00"}
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")


def draw_captions(results: Sequence[LanguageResult], curve: Mapping[int, Mode]) -> bytes:
    """A PNG. Below the bars, if more than one number of neighbours was run, a line for each language."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(7.0, 0.55 * len(results) + 2)
    figure = Figure(figsize=(width, 7.5 if curve else 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if curve else 1, 1, squeeze=False)[:, 0]
    _draw_bars(axes[0], results)
    if curve:
        _draw_curve(axes[1], results, curve)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _draw_bars(axes: Any, results: Sequence[LanguageResult]) -> None:
    modes = [mode for mode in MODES if mode in results[0].scores] or list(results[0].scores)[:1]
    breadth = 0.8 / len(modes)
    means = [mean_of("", [result]) for result in results]
    for number, mode in enumerate(modes):
        intervals = [mean.modes[mode] for mean in means]
        heights = [interval.value for interval in intervals]
        reach = [
            [interval.value - interval.low for interval in intervals],
            [interval.high - interval.value for interval in intervals],
        ]
        places = [place + (number - (len(modes) - 1) / 2) * breadth for place in range(len(results))]
        label = f"{mode} retrieval" if mode in MODES else mode
        axes.bar(
            places, heights, breadth, yerr=reach, capsize=2, label=label, color=_COLOURS.get(mode, "grey")
        )
    axes.set_xticks(range(len(results)), [result.references.language for result in results])
    axes.set(ylabel="CIDEr-D × 100", title="By language, with 95 % intervals")
    axes.legend(frameon=False, ncols=2)
    axes.grid(axis="y", alpha=0.3)


def _draw_curve(axes: Any, results: Sequence[LanguageResult], curve: Mapping[int, Mode]) -> None:
    for number, result in enumerate(results):
        heights = [result.scores[mode].cider_d for mode in curve.values()]
        colour = _LINES[number % len(_LINES)]
        style = ("-", "--", ":")[number // len(_LINES) % 3]
        language = result.references.language
        axes.plot(list(curve), heights, style, color=colour, marker="o", markersize=3, label=language)
    mean = mean_of("mean", results)
    means = [mean.modes[mode].value for mode in curve.values()]
    axes.plot(list(curve), means, color="black", linewidth=3, alpha=0.5, label="mean")
    axes.set(xlabel="retrieved captions in the prompt (k)", ylabel="CIDEr-D × 100")
    axes.set_xticks(list(curve))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
