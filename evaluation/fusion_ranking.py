"""What matchers are scored on: which of the captions that the embedder finds for a photo are its own?

What is found is the same for all of them. A caption's own score is its cosine; a matcher's logit takes its
place or is added to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.errors import InvalidRequestError
from training.config import read_config
from training.embedder import EmbedderRun, caption_texts, load_space
from training.features import FeatureCache
from training.matcher import MatcherRun, load_reader
from training.text_vectors import read_text_vectors

# Of a logit beside a cosine. Cosines of what is found differ by tenths, logits by several units.
_WEIGHTS = (0.0, *(10 ** (exponent / 8) for exponent in range(-32, 9)))


@dataclass(frozen=True)
class Ranking:
    """P photos in one language, and the K captions that the embedder finds for each of them, best first."""

    photos: Tensor  # (P,) int64, which of the photos of the comparison
    captions: Sequence[Sequence[int]]  # C of all photos, token ids
    found: Tensor  # (P, K) int64, places in `captions`
    cosines: Tensor  # (P, K)
    own: Tensor  # (P, K) bool, the photo's own


def make_ranking(captions: Sequence[Sequence[int]], owner: Tensor, cosines: Tensor, k: int) -> Ranking:
    """The ranking of one language.

    Args:
        captions: C of them, token ids.
        owner: (C,) int64, the photo that each describes. Photos without any do not take part.
        cosines: (all photos, C).
    """
    photos = torch.unique(owner)
    nearest = cosines[photos].topk(min(k, len(captions)), dim=1)
    own = owner[nearest.indices] == photos[:, None]
    return Ranking(photos, captions, nearest.indices, nearest.values, own)


def load_rankings(
    run: MatcherRun, photos: Sequence[str], languages: Sequence[str], k: int
) -> dict[str, Ranking]:
    """Rankings by language, of captions by people and with the embedder that a recipe names.

    Raises:
        InvalidRequestError: a file is missing, a run of another part is not finished, or people wrote no
            captions of these photos in a language.
    """
    rows, vectors = read_text_vectors(run.data.captions, run.data.text_vectors)
    number = {photo: i for i, photo in enumerate(photos)}
    kept: dict[str, list[int]] = {language: [] for language in languages}
    for i, row in enumerate(rows):
        if row.language in kept and row.image_id in number and row.kind.startswith("human"):
            kept[row.language].append(i)
    if missing := [language for language, own in kept.items() if not own]:
        raise InvalidRequestError(
            f"{run.data.captions} has no captions of these photos by people in {', '.join(missing)}"
        )
    features = FeatureCache(run.data.features)
    space = load_space(read_config(run.embedder, EmbedderRun))
    reader = load_reader(run)
    rankings = {}
    with torch.inference_mode():
        images, _ = space.query_vectors(features.pooled(photos), features.class_logits(photos))
        for language, own in kept.items():
            chosen = [rows[i] for i in own]
            texts = space.entry_vectors(caption_texts(space, chosen, vectors[torch.tensor(own)].float()))
            owner = torch.tensor([number[row.image_id] for row in chosen])
            captions = reader.tokenise([row.text for row in chosen])
            rankings[language] = make_ranking(captions, owner, images @ texts.t(), k)
    return rankings


def hits(scores: Tensor, own: Tensor) -> Tensor:
    """(P,) bool: is the best of each photo's captions its own?

    A foreign one with the same score counts as better, as in `evaluation.retrieval`: a matcher that gives
    everything the same logit scores 0.

    Args:
        scores: (P, K).
        own: (P, K) bool.
    """
    lowest = float("-inf")
    return scores.masked_fill(~own, lowest).amax(dim=1) > scores.masked_fill(own, lowest).amax(dim=1)


def hits_with_embedder(
    rankings: Mapping[str, Ranking], logits: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[float]]:
    """What cosines with weighted logits added to them find, by language as `hits`.

    Nothing is chosen on the photos that it is scored on: with the weight that is best for every other photo,
    the rest is ranked, and the other way round.

    Args:
        logits: (P, K) of each language.

    Returns:
        Hits, and the weights of the even and of the odd photos. Of weights that find as much the smallest is
        taken.
    """
    tried = {
        language: torch.stack(
            [hits(ranking.cosines + weight * logits[language], ranking.own) for weight in _WEIGHTS]
        )
        for language, ranking in rankings.items()
    }  # (W, P) each
    odd = {language: ranking.photos % 2 == 1 for language, ranking in rankings.items()}
    best = []
    for half in (0, 1):
        others = {language: own != half for language, own in odd.items()}
        recall = torch.stack(
            [tried[language][:, other].float().mean(dim=1) for language, other in others.items()]
        ).mean(dim=0)
        best.append(int((recall == recall.max()).nonzero()[0]))
    found = {
        language: torch.where(odd[language], tried[language][best[1]], tried[language][best[0]])
        for language in rankings
    }
    return found, [_WEIGHTS[number] for number in best]
