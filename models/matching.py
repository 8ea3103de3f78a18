"""The matcher at work on texts: photos and captions in, logits out.

A logit above 0 says that the caption rather fits the photo than not; its sigmoid is the confidence. Each
photo and each text goes through its tower once, however many pairs they are in.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from models.matcher import EncodedTexts, Matcher
from retrieval.datastore import Neighbour
from retrieval.e5_states import CaptionReader

_TEXTS_AT_ONCE = 256
_REMEMBERED = 2048  # texts, about 16 kB each: neighbours come again and again
_PAIRS_AT_ONCE = 256  # bounds the memory of what a fusion encoder computes


class CaptionMatcher:
    """A trained matcher with what reads the captions for it.

    Args:
        load_reader: called at the first caption: whoever only encodes photos need not wait for it.
    """

    def __init__(self, matcher: Matcher, load_reader: Callable[[], CaptionReader]) -> None:
        self._matcher = matcher
        self._load_reader = load_reader
        # Text → states (T, D) and weights (T,), the longest unused first.
        self._lately: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def _reader(self) -> CaptionReader:
        return self._load_reader()

    @torch.inference_mode()
    def logits(
        self, tokens: Tensor, texts: Sequence[Sequence[str]], trust: Sequence[float] | None = None
    ) -> list[list[float]]:
        """Logits of each of B photos with each of its texts.

        Args:
            tokens: (B, N, d_memory) visual tokens.
            texts: B lists of any length, an empty one too.
            trust: factor of each photo's logits; 0 is a photo of which the matcher cannot know anything.
        """
        rows = [row for row, own in enumerate(texts) for _ in own]
        if not rows:
            return [[] for _ in texts]
        number = {text: i for i, text in enumerate(dict.fromkeys(text for own in texts for text in own))}
        columns = [number[text] for own in texts for text in own]
        encoded = self._encode(list(number))
        images = self._matcher.encode_images(tokens.to(self._matcher.vision_mean))
        flat: list[float] = []
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            pairs = slice(start, start + _PAIRS_AT_ONCE)
            row = torch.tensor(rows[pairs], device=images.device)
            column = torch.tensor(columns[pairs], device=images.device)
            flat += self._matcher(images[row], encoded[column]).tolist()
        values = iter(flat)
        factors = [1.0] * len(texts) if trust is None else trust
        return [[factor * next(values) for _ in own] for own, factor in zip(texts, factors, strict=True)]

    def rank_neighbours(
        self,
        tokens: Tensor,
        trust: Sequence[float],
        found: Sequence[Sequence[Sequence[Neighbour]]],
        k: int,
        weight: float,
        least: Sequence[float],
    ) -> list[list[list[Neighbour]]]:
        """The best k of what was found for each photo in each language: [photo][language].

        They rank by their key in the datastore and `weight` times their logit; those with a cosine under
        `least` of the photo come last, because they are not read.
        """
        texts = [[neighbour.text for own in per_language for neighbour in own] for per_language in found]
        logits = itertools.chain.from_iterable(self.logits(tokens, texts, trust))
        return [
            [_ranked(own, logits, weight, lowest)[:k] for own in per_language]
            for per_language, lowest in zip(found, least, strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Texts behind their tower; of those met lately nothing is computed again."""
        found = {text: self._lately.pop(text) for text in texts if text in self._lately}
        new = [text for text in texts if text not in found]
        ids = self._reader.tokenise(new)
        for start in range(0, len(new), _TEXTS_AT_ONCE):
            chunk = slice(start, start + _TEXTS_AT_ONCE)
            states, mask = self._reader(ids[chunk])
            device = self._matcher.text_mean.device
            encoded = self._matcher.encode_texts(states.to(device), mask.to(device))
            for row, text in enumerate(new[chunk]):
                length = int(mask[row].sum())
                # Copies: a view would keep the whole batch in memory.
                found[text] = (encoded.states[row, :length].clone(), encoded.weights[row, :length].clone())
        self._lately |= {text: found[text] for text in texts}
        while len(self._lately) > _REMEMBERED:
            del self._lately[next(iter(self._lately))]
        weights = pad_sequence([found[text][1] for text in texts], batch_first=True)
        lengths = torch.tensor([len(found[text][1]) for text in texts], device=weights.device)
        return EncodedTexts(
            pad_sequence([found[text][0] for text in texts], batch_first=True),
            weights,
            torch.arange(weights.shape[1], device=weights.device) < lengths[:, None],
        )


def _ranked(
    neighbours: Sequence[Neighbour], logits: Iterator[float], weight: float, least: float
) -> list[Neighbour]:
    keys = [(own.score >= least, own.key + weight * next(logits)) for own in neighbours]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)
    return [neighbours[place] for place in order]
