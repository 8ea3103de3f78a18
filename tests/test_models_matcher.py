"""The matcher: every way of joining the two sides, what may reach what, and what padding must not change."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.fusion.bimodal import BimodalEncoder
from models.fusion.blocks import TransformerLayer
from models.fusion.bottleneck_encoder import BottleneckEncoder, Update
from models.fusion.rollout import rollout
from models.matcher import EncodedTexts, Matcher, build_matcher, matcher_settings

MEMORY, TEXT, PLACES, WIDTH = 12, 10, 6, 16
SHAPE: dict[str, Any] = {"d_memory": MEMORY, "places": PLACES, "d_model": WIDTH, "num_heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "late": {"encoder": "late"},
    "late, means alone": {"encoder": "late", "by_word": False, "tower_layers": 1},
    "early": {"encoder": "early"},
    "single stream": {"encoder": "single_stream", "tower_layers": 1},
    "dual stream, intra": {"encoder": "dual_stream_intra", "tower_layers": 1},
    "dual stream, inter": {"encoder": "dual_stream_inter", "tower_layers": 1},
    "bottleneck": {"encoder": "bottleneck", "tower_layers": 1},
    "bottleneck, sequential": {
        "encoder": "bottleneck",
        "tower_layers": 1,
        "fusion_layer": 1,
        "update": "sequential",
    },
}
TYPED = {
    f"types {place}": {"encoder": "single_stream", "tower_layers": 1, "token_types": place}
    for place in ("before", "after", "after_scaled")
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def make(settings: dict[str, Any], *, strong: bool = True) -> Matcher:
    """In evaluation mode; `strong`: with weights that make everything depend on everything it may see."""
    torch.manual_seed(0)
    matcher = build_matcher({**SHAPE, **settings}, TEXT)
    if strong:
        for name, parameter in matcher.named_parameters():
            if not name.startswith(("log_", "bias")):
                nn.init.normal_(parameter, std=0.3)
    return matcher.eval()


def inputs(*lengths: int, width: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A photo and a text for each length: visual tokens, states, mask. What is padded is noise."""
    generator = torch.Generator().manual_seed(1)
    memory = torch.randn(len(lengths), PLACES, MEMORY, generator=generator)
    states = torch.randn(len(lengths), max(*lengths, width), TEXT, generator=generator)
    return memory, states, torch.arange(states.shape[1]) < torch.tensor(lengths)[:, None]


def pair_logits(matcher: Matcher, memory: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    logits: Tensor = matcher(matcher.encode_images(memory), matcher.encode_texts(states, mask))
    return logits


@pytest.mark.parametrize("settings", [*KINDS.values(), *TYPED.values()], ids=[*KINDS, *TYPED])
def test_logits_are_finite_and_within_the_scale(settings: dict[str, Any]) -> None:
    matcher = make(settings)
    logits = pair_logits(matcher, *inputs(5, 3, 2))
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert len(set(logits.tolist())) == 3
    assert ((logits - matcher.bias).abs() <= matcher.log_scale.exp() + 1e-4).all()
    assert matcher_settings(build_matcher(matcher_settings(matcher), TEXT)) == matcher_settings(matcher)


@pytest.mark.parametrize("by_word", [True, False])
def test_late_pairs_are_what_the_towers_say_of_all(by_word: bool) -> None:
    matcher = make({"encoder": "late", "by_word": by_word, "tower_layers": 1})
    memory, states, mask = inputs(5, 3, 2)
    images, texts = matcher.encode_images(memory), matcher.encode_texts(states, mask)
    whole = matcher.tower_logits(images, texts)
    rows, columns = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    assert torch.allclose(matcher(images[rows], texts[columns]).view(3, 3), whole, atol=1e-4)
    assert torch.allclose(matcher(images, texts), whole.diagonal(), atol=1e-4)


@EVERY
def test_a_batch_is_the_same_as_one_by_one(kind: str) -> None:
    matcher = make(KINDS[kind])
    memory, states, mask = inputs(5, 3, 2)
    together = pair_logits(matcher, memory, states, mask)
    for row, length in enumerate((5, 3, 2)):
        one = slice(row, row + 1)
        alone = pair_logits(matcher, memory[one], states[one, :length], mask[one, :length])
        assert torch.allclose(alone, together[one], atol=1e-4)
    longer = pair_logits(matcher, *inputs(5, 3, 2, width=5))
    padded = nn.functional.pad(states, (0, 0, 0, 4), value=7.0), nn.functional.pad(mask, (0, 4))
    assert torch.equal(longer, together)
    assert torch.allclose(pair_logits(matcher, memory, *padded), together, atol=1e-4)
    texts = matcher.encode_texts(*padded)
    assert torch.allclose(texts.weights.sum(dim=1), torch.ones(3))
    assert (texts.weights[~texts.mask] == 0).all()


@EVERY
def test_which_encoders_let_the_photo_change_the_words_and_the_words_the_photo(kind: str) -> None:
    matcher = make(KINDS[kind])
    memory, states, mask = inputs(4, 4)
    memory.requires_grad_()
    states.requires_grad_()
    images, texts = matcher._fuse(matcher.encode_images(memory), matcher.encode_texts(states, mask))
    crosses = kind not in ("late", "late, means alone", "dual stream, intra")
    # With a single fusing layer and sequential updates the photo has written before the text has.
    back = crosses and kind != "bottleneck, sequential"
    assert reaches(texts, memory) == crosses
    assert reaches(images, states) == back
    assert reaches(texts, states)
    assert reaches(images, memory)


def reaches(output: Tensor, source: Tensor) -> bool:
    """Not by the sum: it hardly changes behind some layers."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((output * weights).sum(), source, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.abs().max() > 1e-9)


@pytest.mark.parametrize("settings", [*KINDS.values(), *TYPED.values()], ids=[*KINDS, *TYPED])
def test_gradients_reach_every_parameter(settings: dict[str, Any]) -> None:
    """But one: how sharply words choose among places is not used if only means are compared."""
    matcher = make(settings)
    memory, states, mask = inputs(5, 3, 2)
    images, texts = matcher.encode_images(memory), matcher.encode_texts(states, mask)
    (matcher(images, texts) * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    without = {name for name, weight in matcher.named_parameters() if not _moved(weight)}
    unused = set() if matcher.config.by_word else {"log_focus"}
    assert without == unused


def _moved(weight: Tensor) -> bool:
    return weight.grad is not None and bool(weight.grad.abs().max() > 0)


@pytest.mark.parametrize("settings", [*KINDS.values(), *TYPED.values()], ids=[*KINDS, *TYPED])
def test_parameters_are_those_of_the_parts(settings: dict[str, Any]) -> None:
    matcher = make(settings)
    shape, layers = matcher.config, matcher.config.fusion_layers
    layer = TransformerLayer.num_parameters(WIDTH)
    fusion = {
        "late": 0,
        "early": layers * layer,
        "single_stream": BimodalEncoder.num_parameters(WIDTH, layers, tied=True),
        "dual_stream_intra": BimodalEncoder.num_parameters(WIDTH, layers, tied=False),
        "dual_stream_inter": BimodalEncoder.num_parameters(WIDTH, layers, tied=False),
        "bottleneck": BottleneckEncoder.num_parameters(2, WIDTH, layers, shape.num_bottlenecks),
    }[shape.encoder]
    types = {"none": 0, "before": 2 * WIDTH, "after": 2 * WIDTH, "after_scaled": 3 * WIDTH}
    projections = (MEMORY + 1 + TEXT + 1 + PLACES) * WIDTH
    weighing, scalars = TEXT + 1, 3
    assert matcher.num_parameters == (
        projections + weighing + scalars + 2 * shape.tower_layers * layer + types[shape.token_types] + fusion
    )
    saved = sum(weight.numel() for weight in matcher.state_dict().values())
    assert saved == matcher.num_parameters + MEMORY + TEXT + 2  # means and scales; nothing comes twice


@pytest.mark.parametrize(("towers", "same"), [(0, True), (2, False)])
def test_types_before_and_after_differ_by_the_towers_alone(towers: int, same: bool) -> None:
    settings = {"encoder": "single_stream", "tower_layers": towers}
    before, after = (make({**settings, "token_types": place}) for place in ("before", "after"))
    assert all(
        torch.equal(one, two) for one, two in zip(before.parameters(), after.parameters(), strict=True)
    )
    logits = [pair_logits(matcher, *inputs(5, 3, 2)) for matcher in (before, after)]
    assert torch.equal(*logits) == same
    none = make({**settings, "token_types": "none"})
    weights = {name: weight for name, weight in after.state_dict().items() if not name.startswith("types")}
    none.load_state_dict(weights)
    assert not torch.allclose(pair_logits(none, *inputs(5, 3, 2)), logits[1], atol=1e-2)


def test_scaled_types_begin_as_almost_nothing_and_can_be_learnt() -> None:
    settings = {"encoder": "single_stream", "tower_layers": 1}
    scaled = make({**settings, "token_types": "after_scaled"}, strong=False)
    none = make(settings, strong=False)
    none.load_state_dict(
        {name: weight for name, weight in scaled.state_dict().items() if not name.startswith("types")}
    )
    with_types, without = (pair_logits(matcher, *inputs(5, 3, 2)) for matcher in (scaled, none))
    assert 0 < float((with_types - without).detach().abs().max()) < 1e-3
    with_types.sum().backward()  # type: ignore[no-untyped-call]
    assert scaled.types is not None
    assert scaled.types.layer_scale is not None
    assert _moved(scaled.types.layer_scale)


def test_a_part_of_the_photo_keeps_its_places() -> None:
    matcher = make(KINDS["single stream"])
    memory, _, _ = inputs(2)
    kept = torch.tensor([4, 1])
    towerless = make({"encoder": "late"})
    assert torch.allclose(
        towerless.encode_images(memory[:, kept], kept), towerless.encode_images(memory)[:, kept], atol=1e-5
    )
    everywhere = matcher.encode_images(memory)
    assert torch.equal(everywhere, matcher.encode_images(memory, torch.arange(PLACES)))
    assert not torch.allclose(everywhere, matcher.encode_images(memory.flip(1)), atol=1e-2)


def test_texts_can_be_chosen_among() -> None:
    texts = make(KINDS["late"]).encode_texts(*inputs(5, 3, 2)[1:])
    chosen = texts[torch.tensor([2, 2, 0])]
    assert isinstance(chosen, EncodedTexts)
    assert chosen.mask.sum(dim=1).tolist() == [2, 2, 5]
    assert torch.equal(chosen.states[0], chosen.states[1])


def test_bfloat16_tells_pairs_apart() -> None:
    matcher = make(KINDS["late, means alone"]).to(torch.bfloat16)
    memory, states, mask = inputs(*[8] * 40)
    near = memory[:1] + 0.02 * memory  # photos that are nearly alike
    logits = pair_logits(matcher, near.bfloat16(), states[:1].expand(40, -1, -1).bfloat16(), mask)
    assert len(set(logits.tolist())) > 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "3 heads do not divide 16"),
        ({"encoder": "early", "tower_layers": 1}, "tower_layers must be 0"),
        ({"reduction": 2}, "a matcher has no setting reduction"),
        ({"d_text": 8}, "a matcher has no setting d_text"),
        ({"encoder": "middle"}, "encoder: Input should be 'late'"),
        ({"token_types": "between"}, "token_types: Input should be 'none'"),
        ({"d_model": 0}, "d_model must not be 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"encoder": "bottleneck", "fusion_layer": 1}, "at least 2 below fusion_layers"),
        (
            {"encoder": "bottleneck", "fusion_layer": 2, "update": "sequential"},
            "at least 1 below fusion_layers",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_matcher({**SHAPE, **settings}, TEXT)
    assert "\n" not in str(caught.value)


@EVERY
def test_attention_shows_the_same_crossing_as_the_gradient(kind: str) -> None:
    matcher = make(KINDS[kind])
    memory, states, mask = inputs(4, 2)
    images, texts = matcher.encode_images(memory), matcher.encode_texts(states, mask)
    layers, focus = matcher.attention(images, texts)
    if matcher.config.by_word:
        assert focus is not None
        assert torch.allclose(focus.sum(dim=-1), torch.ones(2, 4))
    else:
        assert focus is None
    if matcher.encoder is None:
        assert layers == []
        return
    for weights in layers:
        assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:3]), atol=1e-5)
    relevance = rollout(layers)
    words, photo = slice(PLACES, PLACES + 4), slice(0, PLACES)
    assert (relevance[1, :PLACES, PLACES + 2 : PLACES + 4] == 0).all()  # nothing looks at padding
    assert (relevance[1, PLACES : PLACES + 2, PLACES + 2 : PLACES + 4] == 0).all()
    crosses = kind != "dual stream, intra"
    assert bool((relevance[0, words, photo] > 0).all()) is crosses
    # With a single fusing layer and sequential updates the photo has written before the text has.
    answers = crosses and kind != "bottleneck, sequential"
    assert bool((relevance[0, photo, words] > 0).all()) is answers


def test_attention_of_bottlenecks_over_the_whole_sequence() -> None:
    expected: dict[Update, int] = {"symmetric": 1, "sequential": 2}
    for update, steps in expected.items():
        encoder = BottleneckEncoder(2, WIDTH, 1, 1, fusion_layer=0, num_bottlenecks=3, update=update).eval()
        generator = torch.Generator().manual_seed(2)
        parts = [torch.randn(1, count, WIDTH, generator=generator) for count in (4, 5)]
        _, _, weights = encoder(parts, need_weights=True)
        joint = encoder.joint_weights(weights)
        assert len(joint) == steps
        vision = weights[0][0][0, 0]
        text = weights[0][1][0, 0]
        assert torch.equal(joint[0][0, 0, :4, :4], vision[:4, :4])
        assert torch.equal(joint[0][0, 0, :4, 9:], vision[:4, 4:])
        assert (joint[0][0, 0, :4, 4:9] == 0).all()
        if update == "symmetric":
            assert torch.allclose(joint[0][0, 0, 9:, 9:], (vision[4:, 4:] + text[5:, 5:]) / 2)
            assert torch.allclose(joint[0][0, 0, 9:, :4], vision[4:, :4] / 2)
        else:
            assert torch.equal(joint[0][0, 0, 4:9, 4:9], torch.eye(5))  # the text comes in the next step
            assert torch.equal(joint[1][0, 0, 9:, 4:9], text[5:, :5])
            assert torch.equal(joint[1][0, 0, :4, :4], torch.eye(4))
