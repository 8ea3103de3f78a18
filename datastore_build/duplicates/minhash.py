"""MinHash keys of texts: two that nearly equal each other probably have one in common.

Broder, "On the resemblance and containment of documents" (1997), on character trigrams as
retrieval/near_duplicates.py makes them; keys of several hashes each as in Leskovec, Rajaraman & Ullman,
"Mining of Massive Datasets", section 3.4. The module hashes and compares nothing.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.near_duplicates import fold

# A pair of Jaccard similarity s has a key in common with probability 1 - (1 - s⁴)⁵: 93 % at 0.8, 99.5 % at
# 0.9, 28 % at 0.5, 4 % at 0.3.
KEYS, _HASHES_A_KEY = 5, 4

HASHES = KEYS * _HASHES_A_KEY
# Of two texts of similarity 0.8 with a key in common, 99.85 % have so many equal bytes in their sketches; of
# two of similarity 0.4, a quarter.
ALIKE_BYTES = 12
_draw = np.random.default_rng(20_240_817)
_FACTORS = _draw.integers(0, 2**32, HASHES, np.uint32) | np.uint32(1)
_SUMMANDS = _draw.integers(0, 2**32, HASHES, np.uint32)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / the golden ratio
_HALF = np.uint64(32)
_BLOCK = 1024  # texts; what is computed of them fits a processor's cache


def minhash_keys(
    languages: Sequence[str], texts: Sequence[str]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Keys (N, KEYS) and sketches (N, HASHES) of texts.

    Texts of different languages have no key in common but by chance. Of the bytes of two sketches about as
    many are equal as the texts' similarity says.
    """
    least = np.empty((len(texts), HASHES), np.uint32)
    for start in range(0, len(texts), _BLOCK):
        _least_hashes(texts[start : start + _BLOCK], least[start : start + _BLOCK])
    seeds = {language: np.uint64(zlib.crc32(language.encode())) for language in set(languages)}
    seed = np.array([seeds[language] for language in languages], np.uint64)
    keys = np.empty((len(texts), KEYS), np.uint64)
    for number in range(KEYS):
        key = _mixed(seed + np.uint64(number))
        for part in range(number * _HASHES_A_KEY, (number + 1) * _HASHES_A_KEY):
            key = _mixed(key ^ least[:, part])
        keys[:, number] = key
    return keys, (least >> np.uint32(24) ^ least >> np.uint32(12)).astype(np.uint8)


def _least_hashes(texts: Sequence[str], least: npt.NDArray[np.uint32]) -> None:
    """Of each text, by each of the hashes, the least of its trigrams: (N, HASHES)."""
    folded = [fold(text) for text in texts]
    lengths = np.array([len(text) for text in folded])  # at least 3: a letter and its two spaces
    points = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    ends = np.cumsum(lengths)
    # A trigram at every character but the last two of each text.
    inside = np.ones(len(points), np.bool_)
    inside[np.concatenate([ends - 1, ends - 2])] = False
    places = np.flatnonzero(inside)
    packed = points[places] << np.uint64(42) | points[places + 1] << np.uint64(21) | points[places + 2]
    trigrams = (_mixed(packed) >> _HALF).astype(np.uint32)
    starts = np.concatenate([[0], np.cumsum(lengths - 2)[:-1]])
    hashed, shifted = np.empty_like(trigrams), np.empty_like(trigrams)
    for number in range(HASHES):
        np.multiply(trigrams, _FACTORS[number], out=hashed)
        np.add(hashed, _SUMMANDS[number], out=hashed)
        np.right_shift(hashed, np.uint32(16), out=shifted)
        np.bitwise_xor(hashed, shifted, out=hashed)
        least[:, number] = np.minimum.reduceat(hashed, starts)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ values >> _HALF) * _MIX
    return (values ^ values >> _HALF) * _MIX
