"""BLEU and chrF of a language's captions, and what they are computed on."""

import sys

import pytest

from evaluation.corpus_scores import score_corpus
from evaluation.tokenisation import CHARACTERS, WORDS
from retrieval.errors import InvalidRequestError

TEXTS = ["A dog runs over the green grass.", "Two kids swim in a cold lake."]


def test_a_perfect_caption_scores_100_whichever_of_its_references_it_is() -> None:
    scores = score_corpus(TEXTS, [["Something.", TEXTS[0]], [TEXTS[1]]], WORDS)
    assert [scores.bleu, scores.chrf] == pytest.approx([100, 100])
    worse = score_corpus(TEXTS[::-1], [["Something.", TEXTS[0]], [TEXTS[1]]], WORDS)
    assert worse.bleu < 10
    assert worse.chrf < 40


def test_bleu_counts_the_tokens_of_the_language() -> None:
    assert score_corpus(["一只狗在草地上跑"], [["一只狗在草地上走"]], CHARACTERS).bleu > 80
    assert score_corpus(["一只狗在草地上跑"], [["一只狗在草地上走"]], WORDS).bleu == 0


def test_the_signatures_tell_the_metric_the_tokens_and_the_version() -> None:
    scores = score_corpus(TEXTS, [[TEXTS[0]], [TEXTS[1]]], CHARACTERS)
    assert scores.bleu_signature.startswith("BLEU|nrefs:1|")
    assert scores.bleu_signature.endswith(CHARACTERS.signature)
    assert "nc:6" in scores.chrf_signature
    assert "version:" in scores.chrf_signature


def test_without_sacrebleu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(InvalidRequestError, match=r"pip install 'paellera\[evaluation\]'"):
        score_corpus(TEXTS, [[TEXTS[0]], [TEXTS[1]]], WORDS)
