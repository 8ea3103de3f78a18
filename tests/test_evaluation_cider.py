"""CIDEr-D against published values and against the formula computed the slow way."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pytest

from evaluation.cider import cider_d

REFERENCES = [
    ["a dog runs on the green grass", "the brown dog is running on grass", "a dog plays outside"],
    ["two children play football in a park", "kids are playing with a ball"],
    [
        "a man rides a red bicycle down the street",
        "a man on a bicycle",
        "the cyclist rides down a street in town",
    ],
    ["a cat sleeps on the sofa"],
]
HYPOTHESES = [
    "a brown dog runs on the grass",
    "two kids play with a ball in the park",
    "a man rides a bicycle a man rides a bicycle a man rides",
    "dog",
]
# Computed once with pycocoevalcap 1.2 (the code behind the scores of the COCO server) on the sentences above.
PUBLISHED = [2.4508607434080316, 1.8158584877081274, 0.6839527590539993, 0.0]

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def corpus(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Corpus:
    return [text.split() for text in hypotheses], [[text.split() for text in texts] for texts in references]


def slow_cider_d(hypotheses: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """Equations 2 to 5 of the paper with section 5.3's changes, one sentence and one n-gram at a time."""

    def grams(sentence: list[str], n: int) -> Counter[tuple[str, ...]]:
        return Counter(tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1))

    scores = []
    for hypothesis, targets in zip(hypotheses, references, strict=True):
        score = 0.0
        for target in targets:
            for n in (1, 2, 3, 4):

                def vector(sentence: list[str], n: int = n) -> dict[tuple[str, ...], float]:
                    weights = {}
                    for gram, count in grams(sentence, n).items():
                        having = sum(any(gram in grams(text, n) for text in texts) for texts in references)
                        weights[gram] = count * math.log(len(references) / max(1, having))
                    return weights

                ours, theirs = vector(hypothesis), vector(target)
                norm = math.sqrt(
                    sum(value**2 for value in ours.values()) * sum(value**2 for value in theirs.values())
                )
                product = sum(min(ours.get(gram, 0.0), value) * value for gram, value in theirs.items())
                bigrams = sum(grams(hypothesis, 2).values()) - sum(grams(target, 2).values())
                score += product / norm * math.exp(-(bigrams**2) / 72) / 4 if norm else 0.0
        scores.append(10 * score / len(targets))
    return scores


def test_published_values() -> None:
    np.testing.assert_allclose(cider_d(*corpus(HYPOTHESES, REFERENCES)), PUBLISHED, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_formula_on_random_corpora(seed: int) -> None:
    rng = random.Random(seed)

    def sentence() -> list[str]:
        return [rng.choice("abcdefgh") for _ in range(rng.choice([0, 1, 2, 3, 5, 8, 13]))]

    hypotheses = [sentence() for _ in range(12)]
    references = [[sentence() for _ in range(rng.randint(1, 4))] for _ in range(12)]
    expected = slow_cider_d(hypotheses, references)
    np.testing.assert_allclose(cider_d(hypotheses, references), expected, rtol=0, atol=1e-12)


def test_equals_the_published_code() -> None:
    if find_spec("pycocoevalcap") is None:
        pytest.skip("needs pycocoevalcap (extra dev) to be held against")
    from pycocoevalcap.cider.cider import Cider

    rng = random.Random(11)
    words = [f"w{number}" for number in range(60)]

    def sentence(shortest: int) -> list[str]:
        return rng.choices(words, weights=[1 / (1 + rank) for rank in range(60)], k=rng.randint(shortest, 16))

    hypotheses = [sentence(0) for _ in range(300)]
    references = [[sentence(1) for _ in range(rng.randint(1, 5))] for _ in hypotheses]
    mean, theirs = Cider().compute_score(
        {n: [" ".join(text) for text in texts] for n, texts in enumerate(references)},
        {n: [" ".join(text)] for n, text in enumerate(hypotheses)},
    )
    ours = cider_d(hypotheses, references)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert ours.mean() == pytest.approx(mean, abs=1e-6)


def test_a_perfect_caption_scores_ten_and_repeating_it_does_not_pay() -> None:
    texts = ["a red car on the road", "two birds over a lake", "my old house in snow"]
    perfect = cider_d(*corpus(texts, [[text] for text in texts]))
    repeated = cider_d(*corpus([f"{text} {text}" for text in texts], [[text] for text in texts]))
    np.testing.assert_allclose(perfect, 10.0)
    assert (repeated < 8.0).all()


def test_nothing_to_score() -> None:
    assert cider_d([], []).shape == (0,)
    assert cider_d([[], []], [[["a"]], [["b"]]]).tolist() == [0.0, 0.0]
    assert cider_d([["a"], []], [[["b"]], [["a"]]], max_order=6).tolist() == [0.0, 0.0]
    assert cider_d([["a"]], [[["a"]]]).tolist() == [0.0]  # one image: every n-gram is in all images


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="1 hypotheses for 2 images"):
        cider_d([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(ValueError, match="image 1 has no reference"):
        cider_d([["a"], ["b"]], [[["a"]], []])
