"""ROUGE-L as captions are scored with it: longest common subsequences of tokens.

Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, ACL workshop 2004, in the form of the COCO
caption evaluation server: β = 1.2, and precision and recall each of the reference that suits it best.
"""

from collections.abc import Sequence

BETA = 1.2


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F-measure from 0 to 1 of one caption against one or more references; 0 without a token."""
    if not hypothesis:
        return 0.0
    common = [
        (longest_common_subsequence(hypothesis, tokens), len(tokens)) for tokens in references if tokens
    ]
    precision = max((length / len(hypothesis) for length, _ in common), default=0.0)
    recall = max((length / tokens for length, tokens in common), default=0.0)
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length. A bit for each token of `first`, all of them in one step (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for number, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << number
    every = (1 << len(first)) - 1
    row = every
    for token in second:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & every
    return len(first) - row.bit_count()
