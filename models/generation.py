"""From prompts to token ids: greedy and beam search, nucleus sampling.

Each prompt is read once, whatever the number of beams; how a language model keeps what it has read is not
known here (models/language/decoding.py). Rows of different prompt length give what they give alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.fusion.bridge import Bridge, BridgeState
from models.language.decoding import LanguageModel
from models.language.tokenizer import BOS, EOS, PAD, UNK
from models.neighbour_cache import Copying, NeighbourCache
from models.neutral.wording import NeutralRows

_NEVER = float("-inf")


@dataclass(frozen=True)
class GenerationSettings:
    """How tokens are chosen. Beam search unless a temperature is given."""

    max_new_tokens: int = 40
    min_new_tokens: int = 3  # before the end token is allowed
    beams: int = 3  # 1 is greedy
    num_captions: int = 1  # hypotheses returned for each prompt
    length_penalty: float = 0.0  # hypotheses rank by log-probability / length ** penalty
    no_repeat_ngram: int = 0  # n: no n-gram twice in a caption; 0 allows all
    temperature: float | None = None  # a number: sample instead of searching
    top_p: float = 0.9  # when sampling, from the smallest set of tokens with this probability
    seed: int = 0  # of sampling
    end: int = EOS  # the token that ends a caption
    never: tuple[int, ...] = (BOS, PAD, UNK)  # special tokens, which are in no caption

    @property
    def width(self) -> int:
        """Token sequences that grow side by side for each prompt."""
        return self.num_captions if self.temperature is not None else max(self.beams, self.num_captions)


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence, the end token left out."""

    ids: tuple[int, ...]
    log_probability: float  # summed over tokens, and the end token if there is one
    finished: bool  # ended by itself, not by the length limit

    @property
    def length(self) -> int:
        """Tokens that were scored."""
        return len(self.ids) + self.finished

    def score(self, length_penalty: float) -> float:
        return float(self.log_probability / max(1, self.length) ** length_penalty)


@dataclass
class _Beams:
    """What is being generated: B rows of W sequences, S tokens long so far."""

    rows: Tensor  # (B,) which prompt a row belongs to
    ids: Tensor  # (B, W, S)
    scores: Tensor  # (B, W) summed log-probabilities
    parents: Tensor  # (B, W) which sequence of the step before each of them continues
    ended: Tensor  # (B, W) bool, used when sampling: has produced the end token

    @classmethod
    def empty(cls, batch: int, width: int, device: torch.device) -> "_Beams":
        """Before the first token each row is one sequence, the prompt."""
        return cls(
            rows=torch.arange(batch, device=device),
            ids=torch.empty(batch, 1, 0, dtype=torch.int64, device=device),
            scores=torch.zeros(batch, 1, device=device),
            parents=torch.zeros(batch, 1, dtype=torch.int64, device=device),
            ended=torch.zeros(batch, width, dtype=torch.bool, device=device),
        )

    def keep(self, kept: Tensor) -> None:
        """Keep some of the rows."""
        self.rows, self.ids, self.scores = self.rows[kept], self.ids[kept], self.scores[kept]
        self.parents, self.ended = self.parents[kept], self.ended[kept]

    def extend(self, parents: Tensor, tokens: Tensor, scores: Tensor) -> None:
        """Sequence w of each row becomes `parents[w]` followed by `tokens[w]`: all (B, W)."""
        self.ids = self.ids.gather(1, parents[:, :, None].expand(-1, -1, self.ids.shape[2]))
        self.ids = torch.cat([self.ids, tokens[:, :, None]], dim=2)
        self.parents, self.scores = parents, scores


@dataclass
class _Finished:
    """The best finished hypotheses of one prompt."""

    settings: GenerationSettings
    hypotheses: list[Hypothesis] = field(default_factory=list)

    def add(self, hypothesis: Hypothesis) -> None:
        self.hypotheses.append(hypothesis)
        self.hypotheses.sort(key=lambda h: h.score(self.settings.length_penalty), reverse=True)
        del self.hypotheses[self.settings.num_captions :]

    def cannot_improve(self, best_running: float) -> bool:
        """No sequence still running, the best at this log-probability, can enter the list any more."""
        if len(self.hypotheses) < self.settings.num_captions:
            return False
        penalty = self.settings.length_penalty
        bound = best_running / (self.settings.max_new_tokens + 1) ** penalty if penalty > 0 else best_running
        return self.hypotheses[-1].score(penalty) >= bound


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    *,
    bridge: Bridge[Any] | None = None,
    bridge_state: BridgeState | None = None,
    copying: Copying | None = None,
    neutral: NeutralRows | None = None,
) -> list[list[Hypothesis]]:
    """Continue each prompt.

    Args:
        model: in evaluation mode.
        prompts: token ids, none empty; lengths may differ.
        settings: how tokens are chosen.
        bridge, bridge_state: the image, prepared, one row a prompt.
        copying: what to take over from the prompts' neighbours; None for nothing.
        neutral: of the prompts, to keep gendered words out; None for none of them.

    Returns:
        For each prompt `settings.num_captions` hypotheses, best first. Those cut by the length limit come
        only where too few ended by themselves.

    Raises:
        ValueError: no prompt, or an empty one.
    """
    if not prompts or not all(prompts):
        raise ValueError("every prompt needs at least one token")
    continuation = model.start(
        prompts,
        width=settings.width,
        max_new_tokens=settings.max_new_tokens,
        bridge=bridge,
        bridge_state=bridge_state,
    )
    hidden = continuation.hidden_states
    beams = _Beams.empty(len(prompts), settings.width, hidden.device)
    neighbour_cache = None if copying is None else NeighbourCache(copying, hidden)
    hidden = hidden[torch.arange(len(prompts)), continuation.lengths - 1][:, None]
    finished = [_Finished(settings) for _ in prompts]
    uniforms = torch.Generator().manual_seed(settings.seed)
    choose = _search if settings.temperature is None else _sample
    for step in range(settings.max_new_tokens):
        log_probabilities = _log_softmax(model.logits(hidden))
        if neighbour_cache is not None:
            log_probabilities = neighbour_cache.mix(hidden, log_probabilities)
        log_probabilities = _constrain(log_probabilities, beams, step, settings)
        if neutral is not None:
            neutral.apply(log_probabilities, beams.rows, beams.ids)
        done = choose(beams, log_probabilities, finished, settings, uniforms)
        if bool(done.all()) or step + 1 == settings.max_new_tokens:
            beams.keep((~done).nonzero()[:, 0])
            break
        if int(done.sum()) * 2 >= len(done):  # dropping rows copies the cache: worth it for many at once
            kept = (~done).nonzero()[:, 0]
            beams.keep(kept)
            continuation.keep(kept)
            if neighbour_cache is not None:
                neighbour_cache.keep(kept)
        hidden = continuation.extend(beams.parents, beams.ids[:, :, -1])
    _take_unfinished(beams, finished, settings)
    return [entry.hypotheses for entry in finished]


def _log_softmax(logits: Tensor) -> Tensor:
    scores = logits.float()
    return scores - scores.logsumexp(dim=-1, keepdim=True)


def _constrain(scores: Tensor, beams: _Beams, step: int, settings: GenerationSettings) -> Tensor:
    """Log-probabilities (B, W, V), in place: minus infinity where a token is not allowed now."""
    scores[..., list(settings.never)] = _NEVER
    if step < settings.min_new_tokens:
        scores[..., settings.end] = _NEVER
    n = settings.no_repeat_ngram
    if n and step >= n:
        grams = beams.ids.unfold(2, n, 1)  # (B, W, S-n+1, n)
        latest = beams.ids[:, :, None, step - n + 1 :]
        repeated = (grams[..., :-1] == latest).all(dim=-1)
        highest = torch.where(repeated, _NEVER, -_NEVER).to(scores.dtype)
        scores.scatter_reduce_(2, grams[..., -1], highest, reduce="amin")
    return scores


def _search(
    beams: _Beams,
    log_probabilities: Tensor,
    finished: Sequence[_Finished],
    settings: GenerationSettings,
    _: torch.Generator,
) -> Tensor:
    """One step of beam search; returns which rows are done (B,) bool."""
    width = settings.width
    # 2W candidates: at most W of them can end their sequence, which leaves W to go on.
    best, tokens = log_probabilities.topk(2 * width, dim=-1)  # (B, w, 2W)
    totals = (beams.scores[:, :, None] + best).flatten(1)
    totals, order = totals.topk(2 * width, dim=1)  # (B, 2W), best first
    parents = order // (2 * width)
    tokens = tokens.flatten(1).gather(1, order)
    ends = tokens == settings.end
    for b, rank in ends[:, :width].nonzero().tolist():
        total = float(totals[b, rank])
        if total > _NEVER:
            ids = tuple(beams.ids[b, parents[b, rank]].tolist())
            finished[int(beams.rows[b])].add(Hypothesis(ids, total, finished=True))
    # Stable, so candidates that go on keep their order and those that end move behind them.
    going_on = ends.to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    beams.extend(parents.gather(1, going_on), tokens.gather(1, going_on), totals.gather(1, going_on))
    running = beams.scores[:, 0].tolist()
    done = [
        finished[row].cannot_improve(best) for row, best in zip(beams.rows.tolist(), running, strict=True)
    ]
    return torch.tensor(done, device=tokens.device)


def _sample(
    beams: _Beams,
    log_probabilities: Tensor,
    finished: Sequence[_Finished],
    settings: GenerationSettings,
    uniforms: torch.Generator,
) -> Tensor:
    """One step of nucleus sampling (Holtzman et al., ICLR 2020); returns which rows are done (B,) bool."""
    assert settings.temperature is not None
    batch, width = log_probabilities.shape[0], settings.width
    log_probabilities = log_probabilities.expand(-1, width, -1)  # the first step has one distribution a row
    probabilities = (log_probabilities / settings.temperature).softmax(dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= settings.top_p, 0.0)  # the first token always stays
    cumulative = ordered.cumsum(dim=-1)
    # The same uniform numbers for every row: a row's captions do not depend on what else is in the batch.
    draw = torch.rand(width, 1, generator=uniforms).to(cumulative.device) * cumulative[..., -1:]
    choice = torch.searchsorted(cumulative, draw, right=True).clamp(max=cumulative.shape[-1] - 1)
    tokens = order.gather(2, choice)[..., 0]  # (B, W)
    gained = log_probabilities.gather(2, tokens[..., None])[..., 0]
    previous = beams.scores.expand(-1, width)
    for b, w in ((tokens == settings.end) & ~beams.ended).nonzero().tolist():
        ids = tuple(beams.ids[b, min(w, beams.ids.shape[1] - 1)].tolist())
        total = float(previous[b, w] + gained[b, w])
        finished[int(beams.rows[b])].add(Hypothesis(ids, total, finished=True))
    beams.ended = beams.ended | (tokens == settings.end)
    parents = torch.arange(width, device=tokens.device).clamp(max=beams.ids.shape[1] - 1)
    beams.extend(parents.expand(batch, -1), tokens, previous + gained)
    return beams.ended.all(dim=1)


def _take_unfinished(beams: _Beams, finished: Sequence[_Finished], settings: GenerationSettings) -> None:
    """Fill up with sequences cut by the length limit, best first, where too few ended by themselves."""
    for b, row in enumerate(beams.rows.tolist()):
        order = beams.scores[b].argsort(descending=True, stable=True).tolist()
        for w in order:
            entry = finished[row]
            if len(entry.hypotheses) < settings.num_captions and not beams.ended[b, w]:
                ids = tuple(beams.ids[b, w].tolist())
                entry.hypotheses.append(Hypothesis(ids, float(beams.scores[b, w]), finished=False))
