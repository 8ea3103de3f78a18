"""BLEU and chrF of all captions of one language, through sacrebleu.

Papineni et al., *BLEU*, ACL 2002, on the tokens that CIDEr-D counts; Popović, *chrF*, WMT 2015, on the
characters of the texts as they are. Both are of the corpus as a whole and not means over photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from evaluation.tokenisation import Tokeniser
from retrieval.errors import InvalidRequestError


@dataclass(frozen=True)
class CorpusScores:
    """From 0 to 100, each with sacrebleu's signature."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


def score_corpus(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokeniser: Tokeniser
) -> CorpusScores:
    """Score N captions, each against one or more references of its own.

    Raises:
        InvalidRequestError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise InvalidRequestError(
            "BLEU and chrF are computed by sacrebleu: pip install 'paellera[evaluation]'"
        ) from None
    bleu, chrf = BLEU(tokenize="none", force=True), CHRF()
    cut = [" ".join(tokeniser.split(text)) for text in hypotheses]
    cut_references = [[" ".join(tokeniser.split(text)) for text in texts] for texts in references]
    # sacrebleu takes a list for the first references of all captions, one for the second ones, and so on.
    bleu_score = bleu.corpus_score(cut, list(zip_longest(*cut_references)))
    chrf_score = chrf.corpus_score(list(hypotheses), list(zip_longest(*references)))
    return CorpusScores(
        bleu_score.score,
        chrf_score.score,
        f"BLEU|{bleu.get_signature()}|{tokeniser.signature}",
        f"chrF2|{chrf.get_signature()}",
    )
