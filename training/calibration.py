"""What a trained matcher still lacks: logits that mean probabilities, and its share in ranking neighbours.

Both are fitted on photos that nothing was trained on, every second one of a held-out split, so that the
others stay unseen for measuring. Scale and bias of the logits: temperature scaling (Guo et al., ICML 2017)
with a bias, because in training a photo meets many more wrong captions than right ones. The share: what
finds most photos' own captions among those that the embedder ranks best.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.matcher import Matcher
from models.matching import CaptionMatcher
from retrieval.errors import InvalidRequestError
from training.config import read_config
from training.corpus import CaptionRow
from training.embedder import EmbedderRun, caption_texts, load_space
from training.features import FeatureCache
from training.matcher import MatcherRun, load_reader
from training.photo_index import read_photos
from training.text_vectors import read_text_vectors

_RANKED = 20  # captions of a photo that are ranked anew
_HARDEST = 5  # of those that are wrong, the hard ones are drawn from so many
_WEIGHTS = [0.0, *(0.001 * 1.25**step for step in range(24))]  # of the logit beside a cosine; up to 0.17


@dataclass(frozen=True)
class Calibration:
    """A logit becomes `scale * logit + bias`; neighbours rank by cosine + match_weight * that."""

    scale: float
    bias: float
    match_weight: float
    photos: int  # that it was fitted on

    @torch.no_grad()
    def apply(self, matcher: Matcher) -> None:
        """Make it part of the matcher."""
        matcher.log_scale.add_(torch.tensor(self.scale).log())
        matcher.bias.mul_(self.scale).add_(self.bias)


@dataclass(frozen=True)
class _Ranked:
    """Photos with candidate captions in one language, all (P, K)."""

    cosines: Tensor
    logits: Tensor
    own: Tensor  # bool
    pair_logits: Tensor  # (P, 2) of an own caption and of another photo's


def calibrate(config: MatcherRun, matcher: Matcher, split: str = "dev") -> Calibration:
    """Fit on every second photo of a split, in the order of the index.

    Raises:
        InvalidRequestError: the split has too few photos, or a run of another part is not finished.
    """
    photos = [photo.image_id for photo in read_photos(config.data.index) if photo.split == split][::2]
    rows, vectors = read_text_vectors(config.data.captions, config.data.text_vectors)
    scorer = CaptionMatcher(matcher, lambda: load_reader(config))
    features = FeatureCache(config.data.features)
    space = load_space(read_config(config.embedder, EmbedderRun))
    rng = random.Random(config.seed)
    held_out = set(photos)
    ranked = []
    for name in config.data.language_weights:
        kept = [i for i, row in enumerate(rows) if row.language == name and row.image_id in held_out]
        described = sorted({rows[i].image_id for i in kept})
        if len(kept) <= _RANKED or len(described) < 2:
            continue
        captions = [rows[i] for i in kept]
        with torch.inference_mode():
            texts = space.entry_vectors(caption_texts(space, captions, vectors[torch.tensor(kept)].float()))
            queries, _ = space.query_vectors(features.pooled(described), features.class_logits(described))
        ranked.append(_rank(scorer, features, captions, described, queries @ texts.t(), rng))
    if not ranked:
        raise InvalidRequestError(f"{config.data.captions} has too few captions of split '{split}'")
    right = torch.cat([part.pair_logits[:, 0] for part in ranked])
    wrong = torch.cat([part.pair_logits[:, 1] for part in ranked])
    scale, bias = fit_logistic(right, wrong)
    weight = max(_WEIGHTS, key=lambda weight: _recall(ranked, scale * weight))
    return Calibration(scale, bias, weight, len(photos))


def _rank(
    scorer: CaptionMatcher,
    features: FeatureCache,
    captions: Sequence[CaptionRow],
    photos: Sequence[str],
    cosines: Tensor,
    rng: random.Random,
) -> _Ranked:
    """Score the nearest captions of each photo, one of its own, and one of another photo."""
    number = {photo: i for i, photo in enumerate(photos)}
    owner = torch.tensor([number[row.image_id] for row in captions])
    own = owner == torch.arange(len(photos))[:, None]  # (P, C)
    best, nearest = cosines.topk(_RANKED, dim=1)
    pairs = []
    for photo, near in enumerate(nearest.tolist()):
        right = rng.choice(own[photo].nonzero()[:, 0].tolist())
        foreign = [i for i in near if not own[photo, i]][:_HARDEST]
        anywhere = (~own[photo]).nonzero()[:, 0].tolist()
        # Half of the wrong captions are hard, half are any.
        pairs.append([right, rng.choice(foreign if foreign and rng.random() < 0.5 else anywhere)])
    columns = torch.cat([nearest, torch.tensor(pairs)], dim=1)  # (P, K + 2)
    # All in one call, since most captions are candidates of many photos and are then read once.
    texts = [[captions[i].text for i in row] for row in columns.tolist()]
    scored = torch.tensor(scorer.logits(features.tokens(photos), texts))
    return _Ranked(best, scored[:, :_RANKED], own.gather(1, nearest), scored[:, _RANKED:])


def fit_logistic(right: Tensor, wrong: Tensor) -> tuple[float, float]:
    """Scale and bias of logits under which right and wrong pairs, as many of each, are likeliest."""
    logits = torch.cat([right, wrong]).double()
    labels = torch.cat([torch.ones_like(right), torch.zeros_like(wrong)]).double()
    centre, spread = logits.mean(), logits.std().clamp(min=1e-6)
    standard = (logits - centre) / spread
    parameters = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log scale, bias
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(parameters[0].exp() * standard + parameters[1], labels)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale = float(parameters[0].detach().exp() / spread)
    return scale, float(parameters[1].detach() - scale * centre)


def _recall(ranked: Sequence[_Ranked], weight: float) -> float:
    """Mean recall@1 of the languages, ranked by cosine + weight * logit."""
    shares = []
    for part in ranked:
        first = (part.cosines + weight * part.logits).argmax(dim=1, keepdim=True)
        shares.append(float(part.own.gather(1, first).float().mean()))
    return sum(shares) / len(shares)
