"""Generation against a naive one: no cache, no batch, no tree, every sequence run from its first token."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from models.fusion.bottleneck import BottleneckBridge, BottleneckConfig
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.gated_cross_attention import GatedCrossAttentionBridge, GatedCrossAttentionConfig
from models.fusion.query_transformer import QueryTransformerBridge, QueryTransformerConfig
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.generation import GenerationSettings, Hypothesis, generate
from models.language.special_tokens import NO_TOKEN
from models.language.xglm import XGLM, XGLMConfig
from models.neighbour_cache import Copying

CONFIG = XGLMConfig(vocab_size=40, d_model=32, num_layers=2, num_heads=4, ffn_dim=64, max_positions=64)
PROMPTS = [[2, 5, 6, 7, 8, 9, 10], [2, 11], [2, 12, 13, 14], [2, 30, 31, 32, 33]]
SETTINGS = GenerationSettings(max_new_tokens=9, min_new_tokens=2, beams=3)


@pytest.fixture(scope="module")
def model() -> XGLM:
    torch.manual_seed(0)
    model = XGLM(CONFIG).eval()
    for parameter in model.parameters():  # strong weights: continuations that depend on every token
        torch.nn.init.normal_(parameter, std=0.25)
    return model


BRIDGES: dict[str, Callable[[], nn.Module]] = {
    "cross_attention": lambda: CrossAttentionBridge(CrossAttentionConfig(2, 32, 12, 4, reduction=2)),
    "grouped": lambda: CrossAttentionBridge(CrossAttentionConfig(2, 32, 12, 4, reduction=2, num_kv_heads=2)),
    "gated": lambda: GatedCrossAttentionBridge(
        GatedCrossAttentionConfig(2, 32, 12, 4, every=2, num_latents=3, d_latent=16)
    ),
    "query_transformer": lambda: QueryTransformerBridge(
        QueryTransformerConfig(32, 12, 4, num_queries=3, d_query=16)
    ),
    "visual_prefix": lambda: VisualPrefixBridge(VisualPrefixConfig(32, 12, "mlp")),
    "bottleneck": lambda: BottleneckBridge(
        BottleneckConfig(2, 32, 12, 4, num_bottlenecks=2, fusion_layer=1, d_bottleneck=16)
    ),
}


@pytest.fixture(scope="module", params=sorted(BRIDGES))
def bridge(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    bridge = BRIDGES[request.param]().eval()
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return bridge


@pytest.fixture(scope="module")
def state(bridge: Any) -> Any:
    with torch.inference_mode():
        return bridge.prepare(torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(2)))


def naive_log_probabilities(
    model: XGLM,
    bridge: Any,
    state: Any,
    ids: list[int],
    prompt: int,
    least: int,
    copying: tuple[list[int], float] = ([], 0.0),
) -> torch.Tensor:
    hidden = model(torch.tensor([ids]), bridge=bridge, bridge_state=state)
    scores = model.logits(hidden)[0, -1].log_softmax(-1)
    continuations, weight = copying
    offered = [place for place, token in enumerate(continuations) if token != NO_TOKEN]
    if offered:
        alike = torch.cosine_similarity(hidden[0, offered], hidden[0, -1:], dim=-1)
        probabilities = (1 - weight) * scores.exp()
        for place, share in zip(offered, (alike / 0.1).softmax(dim=0), strict=True):
            probabilities[continuations[place]] += weight * share
        scores = probabilities.log()
    scores[[0, 1, 3]] = -math.inf
    if len(ids) - prompt < least:
        scores[2] = -math.inf
    return scores


def naive_beam_search(
    model: XGLM,
    bridge: Any,
    state: Any,
    prompt: list[int],
    s: GenerationSettings,
    copying: tuple[list[int], float] = ([], 0.0),
) -> list[Hypothesis]:
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[Hypothesis] = []
    for _ in range(s.max_new_tokens):
        candidates = []
        for score, ids in running:
            scores = naive_log_probabilities(
                model, bridge, state, prompt + ids, len(prompt), s.min_new_tokens, copying
            )
            candidates += [(score + float(scores[token]), [*ids, token]) for token in range(len(scores))]
        candidates.sort(key=lambda item: item[0], reverse=True)
        for rank, (score, ids) in enumerate(candidates[: 2 * s.width]):
            if ids[-1] == 2 and rank < s.width:
                finished.append(Hypothesis(tuple(ids[:-1]), score, finished=True))
        running = [item for item in candidates[: 2 * s.width] if item[1][-1] != 2][: s.width]
    finished.sort(key=lambda h: h.score(s.length_penalty), reverse=True)
    cut = [Hypothesis(tuple(ids), score, finished=False) for score, ids in running]
    return (finished + cut)[: s.num_captions]


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("captions", "penalty"), [(1, 0.0), (3, 0.0), (1, 0.8)])
def test_batched_search_equals_naive_search(
    model: XGLM,
    bridge: Any,
    state: Any,
    beams: int,
    captions: int,
    penalty: float,
) -> None:
    settings = dataclasses.replace(SETTINGS, beams=beams, num_captions=captions, length_penalty=penalty)
    actual = generate(model, PROMPTS, settings, bridge=bridge, bridge_state=state)
    for row, prompt in enumerate(PROMPTS):
        one = state.select(torch.tensor([row]))
        expected = naive_beam_search(model, bridge, one, prompt, settings)
        assert [h.ids for h in actual[row]] == [h.ids for h in expected]
        assert [h.finished for h in actual[row]] == [h.finished for h in expected]
        for mine, naive in zip(actual[row], expected, strict=True):
            assert mine.log_probability == pytest.approx(naive.log_probability, abs=1e-4)


N = NO_TOKEN
CONTINUATIONS = [[N, 6, 7, 2, 9, 2, N], [N, N], [N, 13, 14, 2], [N, 31, 32, 33, 2]]


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
def test_copying_in_a_batch_equals_naive_copying(model: XGLM, bridge: Any, state: Any, beams: int) -> None:
    settings = dataclasses.replace(SETTINGS, beams=beams)
    weights = [0.4, 0.4, 0.0, 0.9]
    copying = Copying(CONTINUATIONS, weights)
    actual = generate(model, PROMPTS, settings, bridge=bridge, bridge_state=state, copying=copying)
    plain = generate(model, PROMPTS, settings, bridge=bridge, bridge_state=state)
    for row, prompt in enumerate(PROMPTS):
        one = state.select(torch.tensor([row]))
        offered = (CONTINUATIONS[row], weights[row])
        (expected,) = naive_beam_search(model, bridge, one, prompt, settings, offered)
        assert actual[row][0].ids == expected.ids
        assert actual[row][0].log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    for row in (1, 2):  # nothing to copy, and none of it wanted
        assert actual[row][0].ids == plain[row][0].ids
        assert actual[row][0].log_probability == pytest.approx(plain[row][0].log_probability, abs=1e-4)
    assert set(actual[3][0].ids) <= {31, 32, 33}


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_a_row_does_not_depend_on_its_batch(
    model: XGLM, bridge: Any, state: Any, temperature: float | None
) -> None:
    settings = dataclasses.replace(SETTINGS, num_captions=2, temperature=temperature, seed=7)
    together = generate(model, PROMPTS, settings, bridge=bridge, bridge_state=state)
    for row, prompt in enumerate(PROMPTS):
        alone = generate(
            model, [prompt], settings, bridge=bridge, bridge_state=state.select(torch.tensor([row]))
        )
        assert [h.ids for h in alone[0]] == [h.ids for h in together[row]]


def test_sampling_follows_the_seed(model: XGLM) -> None:
    settings = GenerationSettings(max_new_tokens=8, num_captions=4, temperature=1.0, top_p=1.0)
    first = generate(model, PROMPTS, settings)
    assert first == generate(model, PROMPTS, settings)
    assert first != generate(model, PROMPTS, dataclasses.replace(settings, seed=1))
    assert all(len(row) == 4 for row in first)


def test_sampling_frequencies_follow_the_model(model: XGLM) -> None:
    draws = 4000
    settings = GenerationSettings(
        max_new_tokens=1, min_new_tokens=0, num_captions=draws, temperature=1.0, top_p=1.0, seed=3
    )
    rows = generate(model, [PROMPTS[0]], settings)[0]
    with torch.inference_mode():
        expected = model.logits(model(torch.tensor([PROMPTS[0]])))[0, -1].softmax(-1)
        expected[[0, 1, 3]] = 0
        expected /= expected.sum()
    counts = torch.zeros(40)
    for row in rows:
        counts[row.ids[0] if row.ids else 2] += 1
    assert (counts / draws - expected).abs().max() < 0.03


def test_a_small_nucleus_is_greedy(model: XGLM) -> None:
    greedy = generate(model, PROMPTS, GenerationSettings(max_new_tokens=8, beams=1))
    sampled = generate(model, PROMPTS, GenerationSettings(max_new_tokens=8, temperature=1.0, top_p=1e-6))
    assert [row[0].ids for row in sampled] == [row[0].ids for row in greedy]


def test_length_limits(model: XGLM) -> None:
    settings = GenerationSettings(max_new_tokens=6, min_new_tokens=4, beams=3, num_captions=3)
    for row in generate(model, PROMPTS, settings):
        assert len(row) == 3
        assert all(4 <= len(h.ids) <= 6 for h in row)


def test_no_gram_is_repeated(model: XGLM) -> None:
    settings = GenerationSettings(max_new_tokens=30, min_new_tokens=30, beams=2)

    def repeats(hypothesis: Hypothesis) -> int:
        grams = [hypothesis.ids[i : i + 2] for i in range(len(hypothesis.ids) - 1)]
        return len(grams) - len(set(grams))

    free = generate(model, PROMPTS, settings)
    held = generate(model, PROMPTS, dataclasses.replace(settings, no_repeat_ngram=2))
    assert any(repeats(row[0]) for row in free)
    assert not any(repeats(row[0]) for row in held)


def test_special_and_banned_tokens_never_come(model: XGLM) -> None:
    settings = GenerationSettings(max_new_tokens=12, beams=3)
    first = generate(model, PROMPTS, settings)
    favourite = first[0][0].ids[0]
    again = generate(model, PROMPTS, dataclasses.replace(settings, never=(*settings.never, favourite)))
    tokens = {token for row in again for token in row[0].ids}
    assert not tokens & {0, 1, 2, 3, favourite}


def test_an_empty_prompt_is_refused(model: XGLM) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, [[2, 5], []], SETTINGS)
