"""CIDEr-D over whole corpora at once, in numpy.

Vedantam, Zitnick, Parikh, *CIDEr: Consensus-based Image Description Evaluation*, CVPR 2015, section 5.3, in
the form in which the published scores were computed (the COCO caption evaluation server). It knows nothing of
languages: sentences come as tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4
SIGMA = 6.0

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sentences:
    """All tokens of all sentences in one row. The references come first, then the hypotheses."""

    tokens: IntArray  # (T,) token ids
    sentence: IntArray  # (T,) the sentence each token is in, ascending
    lengths: IntArray  # (S,) tokens of each sentence


def cider_d(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    max_order: int = MAX_ORDER,
    sigma: float = SIGMA,
) -> FloatArray:
    """Score one hypothesis per image against that image's references.

    Document frequencies are those of the references given, so a score depends on the whole set evaluated: a
    set of one image scores 0.

    Args:
        hypotheses: the tokens of N sentences.
        references: for each of the N images, the tokens of one or more sentences.
        max_order: longest n-gram counted; orders 1..max_order weigh the same.
        sigma: width, in tokens, of the Gaussian penalty on the difference in length.

    Returns:
        (N,) float64, each from 0 to 10. The customary figure in papers is their mean times 100.

    Raises:
        ValueError: the two lists differ in length, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} images")
    if not hypotheses:
        return np.zeros(0)
    counts = np.array([len(sentences) for sentences in references], dtype=np.int64)  # (N,)
    if not counts.all():
        raise ValueError(f"image {int(np.argmin(counts))} has no reference")
    images = len(hypotheses)
    owner = np.repeat(np.arange(images), counts)  # (R,) the image of each reference
    sentences = _intern([sentence for group in references for sentence in group], hypotheses)

    # The published implementation takes the number of bigrams for a sentence's length.
    lengths = np.maximum(sentences.lengths - 1, 0)
    difference = lengths[len(owner) + owner] - lengths[: len(owner)]  # (R,)
    penalty = np.exp(-(difference.astype(np.float64) ** 2) / (2.0 * sigma**2))  # (R,)

    total = np.zeros(len(owner))
    gram = np.zeros(len(sentences.tokens), dtype=np.int64)  # (T,) id of the n-gram that starts at a token
    for order in range(1, max_order + 1):
        start, gram = _extend(sentences, gram, order)
        total += _similarity(sentences.sentence[start], gram[start], owner, images)
    per_reference = penalty * total / max_order
    return 10.0 * np.bincount(owner, weights=per_reference, minlength=images) / counts


def _intern(references: list[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> _Sentences:
    sentences = [*references, *hypotheses]
    words = list(chain.from_iterable(sentences))
    ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokens = np.array([ids[word] for word in words], dtype=np.int64)
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    return _Sentences(tokens, np.repeat(np.arange(len(lengths)), lengths), lengths)


def _extend(sentences: _Sentences, shorter: IntArray, order: int) -> tuple[IntArray, IntArray]:
    """From the ids of the (order-1)-grams to those of the order-grams.

    Returns the positions where an n-gram fits into its sentence (P,) and the new ids (T,), which mean
    something at those positions only.
    """
    tokens, sentence = sentences.tokens, sentences.sentence
    last = order - 1
    start = np.flatnonzero(sentence[: max(len(sentence) - last, 0)] == sentence[last:])
    pair = shorter[start] * (tokens.max(initial=0) + 1) + tokens[start + last]
    grams = np.zeros_like(shorter)
    grams[start] = np.unique(pair, return_inverse=True)[1]
    return start, grams


def _similarity(sentence: IntArray, gram: IntArray, owner: IntArray, images: int) -> FloatArray:
    """Clipped tf-idf cosine of each reference with the hypothesis of its image, for n-grams of one order.

    Args:
        sentence: (P,) the sentence of each n-gram; below R a reference, from R on a hypothesis.
        gram: (P,) the n-gram's id.
        owner: (R,) the image of each reference.
        images: N.
    """
    vocabulary = int(gram.max(initial=0)) + 1
    keys, frequency = np.unique(sentence * vocabulary + gram, return_counts=True)  # (K,) ascending
    holder, word = np.divmod(keys, vocabulary)
    in_reference = holder < len(owner)

    # Document frequency: in how many images some reference has the n-gram.
    seen = np.sort(owner[holder[in_reference]] * vocabulary + word[in_reference])
    seen = seen[np.diff(seen, prepend=-1) != 0]  # np.unique would hash, which takes longer
    documents = np.maximum(np.bincount(seen % vocabulary, minlength=vocabulary), 1)  # (V,)
    weight = frequency * (np.log(images) - np.log(documents[word]))  # (K,)
    norm = np.sqrt(np.bincount(holder, weights=weight**2, minlength=len(owner) + images))  # (S,)

    reference, hypothesis = keys[in_reference], keys[~in_reference]
    if not len(hypothesis):
        return np.zeros(len(owner))
    wanted = (len(owner) + owner[holder[in_reference]]) * vocabulary + word[in_reference]
    place = np.minimum(np.searchsorted(hypothesis, wanted), len(hypothesis) - 1)
    found = hypothesis[place] == wanted
    own = weight[in_reference]  # (K_ref,)
    other = np.where(found, weight[~in_reference][place], 0.0)
    product = np.bincount(
        reference // vocabulary, weights=np.minimum(own, other) * own, minlength=len(owner)
    )  # (R,)
    norms = norm[: len(owner)] * norm[len(owner) + owner]
    similarity = np.zeros(len(owner))
    np.divide(product, norms, out=similarity, where=norms > 0)
    return similarity
