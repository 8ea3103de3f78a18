"""What is measured on the captions of one language: agreement with references, and the text on its own.

It takes texts and knows nothing of images, models or files, so a training loop can call it as it goes.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.cider import MAX_ORDER, SIGMA, cider_d
from evaluation.rouge import rouge_l
from evaluation.tokenisation import Tokeniser, tokeniser_for
from retrieval.errors import InvalidRequestError

SCRIPT_SHARE = 0.9  # of a caption's letters, to count as written in its language's script

# The first word of a letter's Unicode name is its script. Languages not named here are written in Latin.
_SCRIPTS: dict[str, frozenset[str]] = {
    "ar": frozenset({"ARABIC"}),
    "bn": frozenset({"BENGALI"}),
    "el": frozenset({"GREEK"}),
    "fa": frozenset({"ARABIC"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "ja": frozenset({"CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"}),
    "ko": frozenset({"HANGUL"}),
    "ru": frozenset({"CYRILLIC"}),
    "te": frozenset({"TELUGU"}),
    "th": frozenset({"THAI"}),
    "uk": frozenset({"CYRILLIC"}),
    "zh": frozenset({"CJK", "IDEOGRAPHIC"}),
}
_LATIN = frozenset({"LATIN"})
_ANY_SCRIPT = frozenset({"MODIFIER"})  # such as the letter apostrophe of Ukrainian


@dataclass(frozen=True)
class Lengths:
    """How many tokens the captions have."""

    mean: float
    deviation: float
    shortest: int
    median: float
    longest: int
    references: float  # mean length of the references


@dataclass(frozen=True)
class CaptionScores:
    """Scores of one language. Shares and ROUGE-L are from 0 to 1."""

    language: str
    images: int
    references_per_image: float  # mean
    cider_d: float  # mean over images, times 100
    rouge_l: float  # mean over images
    distinct_1: float  # different tokens among all tokens of all captions
    distinct_2: float  # different bigrams among all bigrams of all captions
    lengths: Lengths
    loops: float  # share of captions in which three words (in Chinese five characters) come twice
    script: float  # share of captions written in the language's script
    signature: str  # how CIDEr-D was computed and the text was cut
    image_cider_d: Mapping[str, float] = field(repr=False)  # image id → CIDEr-D times 100

    @property
    def mean_length(self) -> float:
        """Mean number of tokens."""
        return self.lengths.mean


def score_captions(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    language: str,
    tokeniser: Tokeniser | None = None,
) -> CaptionScores:
    """Score the captions of one language.

    Images are those that have both a caption and a reference; everything, the document frequencies of
    CIDEr-D too, is computed on them alone. Texts are taken as they are: tokenising lower-cases them.

    Args:
        hypotheses: image id → caption.
        references: image id → reference captions.
        language: our code of the language, which decides the script.
        tokeniser: what cuts both; None for the plain one of the language, which drops punctuation.

    Raises:
        InvalidRequestError: no image has both.
    """
    image_ids = [image_id for image_id in hypotheses if references.get(image_id)]
    if not image_ids:
        raise InvalidRequestError(f"no caption in '{language}' has a reference to be scored against")
    tokeniser = tokeniser or tokeniser_for(language)
    captions = [hypotheses[image_id] for image_id in image_ids]
    tokens = [tokeniser.split(caption) for caption in captions]
    targets = [[tokeniser.split(text) for text in references[image_id]] for image_id in image_ids]
    cider = 100.0 * cider_d(tokens, targets)  # (N,)
    return CaptionScores(
        language=language,
        images=len(image_ids),
        references_per_image=sum(map(len, targets)) / len(targets),
        cider_d=float(cider.mean()),
        rouge_l=sum(map(rouge_l, tokens, targets)) / len(tokens),
        distinct_1=distinct_n(tokens, 1),
        distinct_2=distinct_n(tokens, 2),
        lengths=_lengths(tokens, targets),
        loops=sum(has_repeat(sentence, tokeniser.loop_length) for sentence in tokens) / len(tokens),
        script=sum(in_script(caption, language) for caption in captions) / len(captions),
        signature=cider_signature(tokeniser),
        image_cider_d=dict(zip(image_ids, cider.tolist(), strict=True)),
    )


def _lengths(tokens: Sequence[Sequence[str]], targets: Sequence[Sequence[Sequence[str]]]) -> Lengths:
    lengths = np.array([len(sentence) for sentence in tokens])
    return Lengths(
        float(lengths.mean()),
        float(lengths.std()),
        int(lengths.min()),
        float(np.median(lengths)),
        int(lengths.max()),
        float(np.mean([len(sentence) for group in targets for sentence in group])),
    )


def cider_signature(tokeniser: Tokeniser) -> str:
    """Everything a CIDEr-D score depends on beside the texts, on one line."""
    return f"CIDEr-D|n:{MAX_ORDER}|sigma:{SIGMA:g}|df:evaluated|{tokeniser.signature}"


def distinct_n(sentences: Iterable[Sequence[str]], n: int) -> float:
    """Different n-grams among all n-grams of all sentences (Li et al., NAACL 2016); 0 if there are none."""
    grams = [gram for sentence in sentences for gram in _ngrams(sentence, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def has_repeat(sentence: Sequence[str], n: int) -> bool:
    """Does some n-gram come twice in the sentence?"""
    grams = _ngrams(sentence, n)
    return len(set(grams)) < len(grams)


def in_script(text: str, language: str) -> bool:
    """Are at least 90 % of the text's letters of the script the language is written in?

    A text without letters is in no script. Languages that share a script are not told apart.
    """
    expected = _SCRIPTS.get(language, _LATIN)
    scripts = [
        unicodedata.name(character, "").split(" ", 1)[0]
        for character in text
        if unicodedata.category(character).startswith("L")
    ]
    letters = [script for script in scripts if script not in _ANY_SCRIPT]
    return bool(letters) and sum(script in expected for script in letters) >= SCRIPT_SHARE * len(letters)


def _ngrams(sentence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(sentence[start : start + n]) for start in range(len(sentence) - n + 1)]
