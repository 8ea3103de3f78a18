"""A matcher on many pairs: the captions' states are read once for all matchers, towers run once for each."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.fusion_ranking import Ranking
from models.matcher import EncodedTexts, Matcher
from training.matcher import MatcherMaterial

_TEXTS_AT_ONCE = 256
_PAIRS_AT_ONCE = 160
_LENGTH_STEP = 8  # oneDNN compiles its kernels anew for every new shape


class PairScorer:
    """Photos and captions of a ranking, ready for one matcher after another; float32, as in the service.

    Args:
        photos: all those of the comparison.
    """

    def __init__(
        self,
        material: MatcherMaterial,
        photos: Sequence[str],
        rankings: Mapping[str, Ranking],
    ) -> None:
        self._features = material.features
        self._photos = photos
        self._rankings = rankings
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}  # language → states and mask of its captions
        for language, ranking in rankings.items():
            parts = [
                material.read(ranking.captions[start : start + _TEXTS_AT_ONCE])
                for start in range(0, len(ranking.captions), _TEXTS_AT_ONCE)
            ]
            width = max(mask.shape[1] for _, mask in parts)
            self._texts[language] = (
                torch.cat([F.pad(states, (0, 0, 0, width - states.shape[1])) for states, _ in parts]),
                torch.cat([F.pad(mask, (0, width - mask.shape[1])) for _, mask in parts]),
            )

    @torch.inference_mode()
    def logits(self, matcher: Matcher) -> dict[str, Tensor]:
        """Language → logits (P, K) of what was found for each photo, float32.

        Args:
            matcher: in evaluation mode.
        """
        images = torch.cat(
            [
                matcher.encode_images(self._memory(self._photos[start : start + 32]))
                for start in range(0, len(self._photos), 32)
            ]
        )
        return {
            language: self._score(matcher, images, language, ranking)
            for language, ranking in self._rankings.items()
        }

    def one_photo(self, language: str, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """Visual tokens (1, N, d_memory) of a ranking's photo, states (K, T, d_text) and mask (K, T)."""
        ranking = self._rankings[language]
        states, mask = (part[ranking.found[row]] for part in self._texts[language])
        width = _width(mask)
        return self._memory([self._photos[int(ranking.photos[row])]]), states[:, :width], mask[:, :width]

    @torch.inference_mode()
    def score_one(self, matcher: Matcher, photo: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Logits (K,) of what `one_photo` gives."""
        memory, states, mask = photo
        images, texts = matcher.encode_images(memory), matcher.encode_texts(states, mask)
        if matcher.encoder is None:
            return matcher.tower_logits(images, texts)[0]
        logits: Tensor = matcher(images.expand(len(states), -1, -1), texts)
        return logits

    def _score(self, matcher: Matcher, images: Tensor, language: str, ranking: Ranking) -> Tensor:
        states, mask = self._texts[language]
        texts = matcher.encode_texts(states, mask)
        pairs = ranking.found.flatten()
        photos = ranking.photos.repeat_interleave(ranking.found.shape[1])
        logits = torch.empty(len(pairs))
        # Captions of one length together, or padding would be half of the work.
        by_length = mask[pairs].sum(dim=1).argsort(stable=True)
        for some in torch.split(by_length, _PAIRS_AT_ONCE):
            of_pairs = texts[pairs[some]]
            width = _width(of_pairs.mask)
            trimmed = EncodedTexts(
                of_pairs.states[:, :width], of_pairs.weights[:, :width], of_pairs.mask[:, :width]
            )
            logits[some] = matcher(images[photos[some]], trimmed)
        return logits.view(ranking.found.shape)

    def _memory(self, photos: Sequence[str]) -> Tensor:
        return self._features.tokens(photos).float()


def _width(mask: Tensor) -> int:
    """The longest of the texts, rounded up as the states themselves are."""
    longest = int(mask.sum(dim=1).max())
    return min(mask.shape[1], -(-longest // _LENGTH_STEP) * _LENGTH_STEP)
