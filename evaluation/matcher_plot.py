"""The reliability diagram: how often the matcher is right, by how sure it is."""

from pathlib import Path

import numpy as np

from evaluation.calibration import Reliability
from retrieval.files import replacing


def draw_reliability(found: Reliability, ece: float, path: Path) -> None:
    """Draw a PNG: accuracy of each bin of confidence, and below it how many pairs the bin has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(found.counts) + 1)
    some = found.counts > 0
    width = edges[1]
    above.bar(edges[:-1][some], found.accuracy[some], width, align="edge", color="#56B4E9", edgecolor="white")
    above.plot(found.confidence[some], found.accuracy[some], "o", color="#0072B2", label="mean of a bin")
    above.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="as sure as right")
    above.set(ylabel="share of captions that fit", ylim=(0, 1), title=f"Expected calibration error {ece:.1%}")
    above.legend(loc="upper left", frameon=False)
    below.bar(edges[:-1], found.counts, width, align="edge", color="#999999", edgecolor="white")
    below.set(xlabel="confidence that the caption fits", ylabel="pairs", xlim=(0, 1))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
