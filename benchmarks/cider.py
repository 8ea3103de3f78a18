"""CIDEr-D beside pycocoevalcap's, on the same sentences: the same scores, and how much sooner.

    python -m benchmarks.cider --output benchmarks/cider.md

Sentences are drawn with a fixed seed, as many and as long as COCO's Karpathy test split has: 5,000 photos
with five references each. Both get texts with tokens between spaces and give a score for each photo; they
take turns, so that what else the machine does meets both alike.
"""

import argparse
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from evaluation.cider import cider_d

PHOTOS, REFERENCES, WORDS = 5_000, 5, 8_000

Scores = npt.NDArray[np.float64]


def draw_texts(photos: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """A caption and references of each photo. Words have Zipf's frequencies; those of a photo share half."""
    rng = random.Random(seed)
    words = [f"w{rank}" for rank in range(WORDS)]
    weights = [1 / (rank + 3) for rank in range(WORDS)]
    captions, references = [], []
    for _ in range(photos):
        topic = rng.choices(words, weights, k=8)

        def sentence(topic: Sequence[str] = topic) -> str:
            length = max(4, min(25, round(rng.gauss(10.5, 2.4))))
            drawn = rng.choices(words, weights, k=length)
            return " ".join(rng.choice(topic) if rng.random() < 0.5 else word for word in drawn)

        captions.append(sentence())
        references.append([sentence() for _ in range(REFERENCES)])
    return captions, references


def ours(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    return cider_d(
        [text.split() for text in captions], [[text.split() for text in own] for own in references]
    )


def theirs(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    from pycocoevalcap.cider.cider import Cider

    _, scores = Cider().compute_score(
        {number: list(own) for number, own in enumerate(references)},
        {number: [text] for number, text in enumerate(captions)},
    )
    return np.asarray(scores, dtype=np.float64)


def timed(function: Callable[..., Scores], *texts: object) -> tuple[float, Scores]:
    start = time.perf_counter()
    scores = function(*texts)
    return time.perf_counter() - start, scores


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="the result as Markdown")
    options = parser.parse_args(arguments)
    texts = draw_texts(options.photos)
    seconds: dict[str, list[float]] = {"paellera": [], "pycocoevalcap": []}
    difference = 0.0
    for _ in range(options.rounds):
        own_seconds, own = timed(ours, *texts)
        their_seconds, other = timed(theirs, *texts)
        seconds["paellera"].append(own_seconds)
        seconds["pycocoevalcap"].append(their_seconds)
        difference = max(difference, float(np.abs(own - other).max()))
    page = _page(options.photos, options.rounds, seconds, difference)
    print(page)
    if options.output is not None:
        options.output.write_text(page, encoding="utf-8")
    return 0 if difference < 1e-6 else 1


def _page(photos: int, rounds: int, seconds: dict[str, list[float]], difference: float) -> str:
    medians = {name: median(taken) for name, taken in seconds.items()}
    rows = "".join(
        f"| {name} | {medians[name]:.2f} | {min(taken):.2f} – {max(taken):.2f} |\n"
        for name, taken in seconds.items()
    )
    return (
        "# CIDEr-D beside pycocoevalcap\n\n"
        f"- command: `python -m benchmarks.cider --photos {photos} --rounds {rounds} --output cider.md`\n"
        f"- {photos:,} photos with {REFERENCES} references each; {rounds} rounds, in turns; Python "
        f"{platform.python_version()}, numpy {np.__version__}, one process\n"
        f"- largest difference of any photo's score, on the scale of 0 to 10: {difference:.1e}\n"
        f"- **{medians['pycocoevalcap'] / medians['paellera']:.1f} times as fast** (ratio of the medians)\n\n"
        "| | seconds, median | from – to |\n| --- | ---: | ---: |\n" + rows
    )


if __name__ == "__main__":
    sys.exit(main())
