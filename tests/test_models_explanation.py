"""Words and their grids: on small models where the answer is known, and on the shipped bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from models.bundle import Bundle, default_bundle
from models.captioner import Captioner
from models.captions import CaptionSettings, WordAttention
from models.explanation import explain, grid_of, over_the_photo
from models.fusion.bottleneck import BottleneckBridge, BottleneckConfig
from models.fusion.bridge import Origins
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.gated_cross_attention import GatedCrossAttentionBridge, GatedCrossAttentionConfig
from models.fusion.query_transformer import QueryTransformerBridge, QueryTransformerConfig
from models.fusion.soft_prompt import PrefixState
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.language.hub import HubLanguageModel
from models.language.tokenizer import EOS, Tokenizer
from models.language.xglm import XGLM, XGLMConfig
from models.language.xglm_hub import load_xglm
from models.vision.features import VisionFeatures
from retrieval.errors import InvalidRequestError

D_MEMORY = 12
SKIMAGE = Path(skimage.__file__).parent / "data"
BRIDGES: dict[str, Callable[[], nn.Module]] = {
    "cross_attention": lambda: CrossAttentionBridge(
        CrossAttentionConfig(2, 16, D_MEMORY, 4, reduction=2, num_kv_heads=2)
    ),
    "gated_cross_attention": lambda: GatedCrossAttentionBridge(
        GatedCrossAttentionConfig(2, 16, D_MEMORY, 4, every=2, num_latents=3, d_latent=8)
    ),
    "query_transformer": lambda: QueryTransformerBridge(
        QueryTransformerConfig(16, D_MEMORY, 4, num_queries=3, d_query=8)
    ),
    "visual_prefix": lambda: VisualPrefixBridge(VisualPrefixConfig(16, D_MEMORY)),
    "bottleneck": lambda: BottleneckBridge(
        BottleneckConfig(2, 16, D_MEMORY, 4, num_bottlenecks=2, fusion_layer=1, d_bottleneck=8)
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


def strong(module: nn.Module, std: float = 0.3) -> Any:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval().requires_grad_(False)


def decoder(tokenizer: Tokenizer, layers: int) -> XGLM:
    config = XGLMConfig(len(tokenizer), d_model=16, num_layers=layers, num_heads=4, ffn_dim=32)
    model: XGLM = strong(XGLM(config))
    return model


def features(photos: int, tokens: int, grid: tuple[int, int] | None = None) -> VisionFeatures:
    memory = torch.randn(photos, tokens, D_MEMORY, generator=torch.Generator().manual_seed(2))
    return VisionFeatures(memory, memory.mean(dim=1), memory.mean(dim=1), (grid,) * photos if grid else ())


class WalkingBridge:
    """Position t of the text looks at visual token t and at nothing else."""

    def prepare_with_weights(self, memory: Tensor, mask: Tensor | None = None) -> tuple[PrefixState, Origins]:
        batch, tokens, _ = memory.shape
        return PrefixState(memory), Origins(layers={0: torch.eye(tokens).expand(batch, -1, -1)})

    def prefix(self, state: PrefixState) -> None:
        return None

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: PrefixState
    ) -> tuple[Tensor, Tensor]:
        batch, length, _ = hidden_states.shape
        tokens = state.embeddings.shape[1]
        return hidden_states, torch.eye(tokens)[:length].expand(batch, 4, -1, -1)


def test_a_word_is_explained_by_the_position_that_predicted_it(tokenizer: Tokenizer) -> None:
    (caption,) = tokenizer.encode(["cat is sitting."])
    prompt = [EOS, *tokenizer.encode(["a"])[0]]
    bridge: Any = WalkingBridge()
    (words,) = explain(
        decoder(tokenizer, 1), bridge, tokenizer, features(1, 12, (3, 4)), [1], [prompt], [caption]
    )
    assert [word.text for word in words] == ["cat", "is", "sitting."]
    for number, word in enumerate(words):
        looked_at = len(prompt) - 1 + number
        assert len(word.weights) == 3
        assert all(len(row) == 4 for row in word.weights)
        assert word.weights[looked_at // 4][looked_at % 4] == pytest.approx(1.0)


def test_where_nothing_differs_all_places_weigh_the_same(tokenizer: Tokenizer) -> None:
    bridge: Any = BRIDGES["cross_attention"]().eval()
    for projection in bridge.q_projs:
        nn.init.zeros_(projection.weight)
    (caption,) = tokenizer.encode(["a cat on a rug"])
    (words,) = explain(decoder(tokenizer, 2), bridge, tokenizer, features(1, 9), [1], [[EOS]], [caption])
    for word in words:
        torch.testing.assert_close(torch.tensor(word.weights), torch.full((3, 3), 1 / 9))


@pytest.mark.parametrize("kind", sorted(BRIDGES))
def test_every_bridge_is_explained_and_batched_equals_one_by_one(kind: str, tokenizer: Tokenizer) -> None:
    model, bridge = decoder(tokenizer, 2), strong(BRIDGES[kind](), std=1.0)
    photos = features(3, 9)
    texts = ["a cat", "a cup of coffee with a spoon", "قطة تنظر", "一杯咖啡。", "raketa", "Eine Katze."]
    captions = tokenizer.encode(texts) * 2  # more rows than are read at once
    prompts = [[EOS], [EOS, 7, 8, 9], [EOS, 5]] * 4
    together = explain(model, bridge, tokenizer, photos, [5, 4, 3], prompts, captions)
    assert len(together) == 12
    differ = False
    of_photo = [0] * 5 + [1] * 4 + [2] * 3
    for number, words in enumerate(together):
        mine = slice(of_photo[number], of_photo[number] + 1)
        photo = VisionFeatures(photos.tokens[mine], photos.pooled[mine], photos.class_logits[mine])
        (alone,) = explain(model, bridge, tokenizer, photo, [1], [prompts[number]], [captions[number]])
        assert [word.text for word in words] == [word.text for word in alone]
        glue = "" if "咖" in texts[number % 6] else " "
        assert glue.join(word.text for word in words) == texts[number % 6]
        for word, other in zip(words, alone, strict=True):
            torch.testing.assert_close(
                torch.tensor(word.weights), torch.tensor(other.weights), atol=1e-4, rtol=0
            )
            assert sum(map(sum, word.weights)) == pytest.approx(1.0, abs=1e-5)
            assert min(map(min, word.weights)) >= 0
            differ = differ or word.weights != words[0].weights
    assert differ


def strong_xglm(folder: Path) -> Any:
    """transformers' XGLM, saved, with weights that matter."""
    config = transformers.XGLMConfig(
        vocab_size=40_000, d_model=16, num_layers=2, attention_heads=4, ffn_dim=32, max_position_embeddings=64
    )
    model = strong(transformers.XGLMForCausalLM(config))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", sorted(BRIDGES))
def test_a_model_of_the_hub_is_explained_as_our_own_decoder_is(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The same weights, once in our XGLM and once in transformers' code, reached by hooks."""
    theirs, bridge = HubLanguageModel(strong_xglm(tmp_path)), strong(BRIDGES[kind](), std=1.0)
    captions = tokenizer.encode(["a cup of coffee with a spoon", "一杯咖啡。"])
    given: Any = (bridge, tokenizer, features(2, 9), [1, 1], [[EOS], [EOS, 7, 8]], captions)
    for ours, other in zip(explain(load_xglm(tmp_path), *given), explain(theirs, *given), strict=True):
        assert [word.text for word in ours] == [word.text for word in other]
        for word, same in zip(ours, other, strict=True):
            torch.testing.assert_close(
                torch.tensor(word.weights), torch.tensor(same.weights), atol=1e-4, rtol=0
            )


@torch.inference_mode()
def test_watching_changes_nothing_of_a_model_of_the_hub() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    model = HubLanguageModel(strong(transformers.LlamaForCausalLM(config)))
    bridge, memory = strong(BRIDGES["cross_attention"](), std=1.0), features(2, 9).tokens
    ids, state = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]]), bridge.prepare(memory)
    before = model(ids, bridge=bridge, bridge_state=state)
    layers = model.watch(ids, bridge=bridge, bridge_state=state)
    after = model(ids, bridge=bridge, bridge_state=state)
    assert torch.equal(before, after)
    inner: Any = model.model
    assert inner.config._attn_implementation == "sdpa"  # the fast way is still taken
    assert [(layer.own.shape, layer.image.shape) for layer in layers if layer.image is not None] == [
        ((2, 4, 4, 4), (2, 4, 4, 9))
    ] * 2
    # With the image in them the layers above look elsewhere than without.
    other = model.watch(ids, bridge=bridge, bridge_state=bridge.prepare(-memory))
    assert torch.equal(layers[0].own, other[0].own)
    assert (layers[1].own - other[1].own).abs().max() > 1e-3


@torch.inference_mode()
def test_a_model_that_does_not_tell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    model = HubLanguageModel(transformers.LlamaForCausalLM(config).eval())
    # The fast way, which keeps it to itself.
    monkeypatch.setitem(model.__dict__, "_telling", model._decoder[0])
    bridge = strong(BRIDGES["cross_attention"]())
    state = bridge.prepare(features(1, 9).tokens)
    with pytest.raises(InvalidRequestError, match="LlamaForCausalLM does not tell where it looks"):
        model.watch(torch.tensor([[3, 4, 5]]), bridge=bridge, bridge_state=state)


def test_what_stands_for_no_place_and_padding_are_left_out(tokenizer: Tokenizer) -> None:
    """A class token in front, six cells and two tokens of padding, as against the six cells alone."""
    model, bridge = decoder(tokenizer, 2), strong(BRIDGES["cross_attention"](), std=1.0)
    caption = tokenizer.encode(["a cat on a rug"])
    tokens = features(1, 9).tokens
    mask = torch.tensor([[True] * 7 + [False] * 2])
    pooled = tokens.mean(dim=1)
    whole = VisionFeatures(tokens, pooled, pooled, ((2, 3),), summaries=1, mask=mask)
    (words,) = explain(model, bridge, tokenizer, whole, [1], [[EOS]], caption)
    # Without the padding nothing is different, and where it says what does not matter.
    cut = VisionFeatures(tokens[:, :7], pooled, pooled, ((2, 3),), summaries=1)
    (same,) = explain(model, bridge, tokenizer, cut, [1], [[EOS]], caption)
    for word, other in zip(words, same, strict=True):
        assert (len(word.weights), len(word.weights[0])) == (2, 3)
        assert sum(map(sum, word.weights)) == pytest.approx(1.0, abs=1e-5)
        torch.testing.assert_close(torch.tensor(word.weights), torch.tensor(other.weights), atol=1e-5, rtol=0)


def test_a_grid_over_the_middle_of_a_photo_becomes_one_over_all_of_it() -> None:
    weights = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    torch.testing.assert_close(over_the_photo(weights, (0.0, 0.0, 1.0, 1.0)), weights)
    # The middle half of a wide photo: its cells are those in the middle of four columns.
    wide = over_the_photo(weights, (0.25, 0.0, 0.75, 1.0))
    torch.testing.assert_close(wide, torch.tensor([[0, 0.1, 0.2, 0], [0, 0.3, 0.4, 0]]))
    # Two thirds of it: three columns, and each cell's weight is shared out by area.
    shared = over_the_photo(weights, (1 / 6, 0.0, 5 / 6, 1.0))
    torch.testing.assert_close(shared, torch.tensor([[0.05, 0.15, 0.1], [0.15, 0.35, 0.2]]))
    # Padded beyond the photo's edge, above and below: what lies out there is no part of it.
    padded = over_the_photo(torch.tensor([[0.5], [0.2], [0.1], [0.2]]), (0.0, -0.5, 1.0, 1.5))
    torch.testing.assert_close(padded, torch.tensor([[2 / 3], [1 / 3]]))


def test_what_is_no_grid_is_refused(tokenizer: Tokenizer) -> None:
    assert grid_of(81, None) == (9, 9)
    assert grid_of(6, (2, 3)) == (2, 3)
    for tokens, grid in ((50, None), (6, (2, 2))):
        with pytest.raises(InvalidRequestError, match="no grid over the photo"):
            grid_of(tokens, grid)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Bundle.open(default_bundle()).load_captioner(dtype=torch.float32)


def attention(
    captioner: Captioner, photo: str, languages: tuple[str, ...]
) -> list[tuple[WordAttention, ...]]:
    image = Image.open(SKIMAGE / photo).convert("RGB")
    plain, shown = (
        captioner.caption([image], CaptionSettings(languages, explain=explained)).images[0].captions
        for explained in (False, True)
    )
    assert [caption.text for caption in plain] == [caption.text for caption in shown]
    assert [caption.confidence for caption in plain] == [caption.confidence for caption in shown]
    assert all(caption.attention == () for caption in plain)
    for caption in shown:
        glue = "" if caption.language == "zh" else " "
        assert glue.join(word.text for word in caption.attention) == caption.text
    return [caption.attention for caption in shown]


def test_captions_are_the_same_when_explained(captioner: Captioner) -> None:
    for words in attention(captioner, "rocket.jpg", ("ar", "en", "hi", "zh")):
        for word in words:
            assert (len(word.weights), {len(row) for row in word.weights}) == (9, {9})
            assert sum(map(sum, word.weights)) == pytest.approx(1.0, abs=1e-5)


def test_photos_of_one_batch_with_languages_of_their_own_are_explained_each_by_itself(
    captioner: Captioner,
) -> None:
    photos = [Image.open(SKIMAGE / name).convert("RGB") for name in ("coffee.png", "rocket.jpg")]
    settings = CaptionSettings((), explain=True)
    asked = [("en",), ("de", "es", "fr")]
    together = captioner.caption_each(photos, asked, settings).images
    for photo, languages, image in zip(photos, asked, together, strict=True):
        (alone,) = captioner.caption_each([photo], [languages], settings).images
        for mine, batched in zip(alone.captions, image.captions, strict=True):
            assert [word.text for word in mine.attention] == [word.text for word in batched.attention]
            for word, other in zip(mine.attention, batched.attention, strict=True):
                torch.testing.assert_close(
                    torch.tensor(word.weights), torch.tensor(other.weights), atol=1e-3, rtol=0
                )


def test_the_cup_is_where_the_cup_is(captioner: Captioner) -> None:
    names = {"cup", "Tasse", "taza", "tasse", "coffee", "Kaffee", "café"}
    found = [
        torch.tensor(word.weights)
        for words in attention(captioner, "coffee.png", ("en", "de", "es", "fr"))
        for word in words
        if word.text.strip(".") in names
    ]
    assert len(found) >= 4
    # The cup fills less than a quarter of the photo: its rows 1 to 5, its columns 3 to 6 of nine.
    inside = torch.stack(found)[:, 1:6, 3:7].sum(dim=(1, 2)).mean()
    assert inside > 2 * 20 / 81
