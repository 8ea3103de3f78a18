"""ROUGE-L against the code of the COCO caption evaluation server, and the length of common subsequences."""

import random
from importlib.util import find_spec

import pytest

from evaluation.rouge import longest_common_subsequence, rouge_l


def slow_length(first: str, second: str) -> int:
    if not first or not second:
        return 0
    if first[0] == second[0]:
        return 1 + slow_length(first[1:], second[1:])
    return max(slow_length(first[1:], second), slow_length(first, second[1:]))


def test_the_length_of_common_subsequences() -> None:
    rng = random.Random(1)
    for _ in range(60):
        first, second = ("".join(rng.choices("abc", k=rng.randint(0, 8))) for _ in range(2))
        assert longest_common_subsequence(first, second) == slow_length(first, second), (first, second)


def test_values_computed_by_hand() -> None:
    # 3 of 4 tokens and 3 of 6, or 2 of 4 and 2 of 2: precision 3/4 of the first, recall 1 of the second
    caption = ["a", "dog", "runs", "there"]
    references = [["a", "brown", "dog", "runs", "on", "grass"], ["a", "dog"]]
    assert rouge_l(caption, references) == pytest.approx(2.44 * 0.75 / (1 + 1.44 * 0.75))
    assert rouge_l(["a"], [["b"]]) == rouge_l([], [["b"]]) == rouge_l(["a"], [[]]) == 0
    assert rouge_l(["a", "b"], [["a", "b"]]) == 1


def test_equals_the_published_code() -> None:
    if find_spec("pycocoevalcap") is None:
        pytest.skip("needs pycocoevalcap (extra dev) to be held against")
    from pycocoevalcap.rouge.rouge import Rouge

    rng = random.Random(2)
    captions = [rng.choices("abcdefgh", k=rng.randint(1, 12)) for _ in range(100)]
    references = [
        [rng.choices("abcdefgh", k=rng.randint(1, 12)) for _ in range(rng.randint(1, 5))] for _ in captions
    ]
    _, theirs = Rouge().compute_score(
        {n: [" ".join(text) for text in texts] for n, texts in enumerate(references)},
        {n: [" ".join(text)] for n, text in enumerate(captions)},
    )
    assert list(map(rouge_l, captions, references)) == pytest.approx(theirs.tolist(), abs=1e-12)
