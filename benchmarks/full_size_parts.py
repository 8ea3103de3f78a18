"""PAELLA's models at their real sizes with drawn weights: what `full_size.py` measures.

Nothing of it can write a sentence, and all of it computes what the trained models compute. Weights are made
in the precision that they are used in, block by block, so that no larger copy of them ever exists. The same
name gets the same numbers, whichever model asks for it.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from datastore_build.build import build_datastore
from models.bundle import default_bundle
from models.captioner import Captioner
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.language.tokenizer import Tokenizer
from models.language.xglm import XGLM, XGLMConfig
from models.manifest import GenerationDefaults
from models.prompts.builder import PromptBuilder, load_templates
from models.vision.hub import HubVisionEncoder
from retrieval.datastore import Datastore
from retrieval.embedder import Queries

BEAMS, NEW_TOKENS, NEIGHBOURS = 3, 20, 4
_EMBEDDINGS = "embed_tokens.weight"
_BLOCK = 2**22  # weights drawn at a time
# About as long as the captions of COCO: with the template around them, a prompt of about 100 tokens.
NEIGHBOUR_CAPTIONS = (
    "A man in a red jacket rides a bicycle along the river in the evening.",
    "Two children sit on a wooden bench next to a large brown dog.",
    "A plate with rice, vegetables and a slice of lemon on a blue table.",
    "A small white boat lies on the beach in front of green hills.",
)


@dataclass(frozen=True)
class Size:
    """A language model's shape, and the image encoder and bridge that go with it."""

    language: XGLMConfig
    vision: dict[str, int]
    reduction: int


_VIT_B_32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
}
SIZES = {
    "564M": Size(XGLMConfig(d_model=1024, num_layers=24, num_heads=16, ffn_dim=4096), _VIT_B_32, 16),
    "1.7B": Size(XGLMConfig(d_model=2048, num_layers=24, num_heads=16, ffn_dim=8192), _VIT_B_32, 16),
    "2.9B": Size(XGLMConfig(d_model=2048, num_layers=48, num_heads=16, ffn_dim=8192), _VIT_B_32, 16),
    # For a quick try: every part is there, and small.
    "tiny": Size(
        XGLMConfig(vocab_size=13_000, d_model=64, num_layers=2, num_heads=4, ffn_dim=96, max_positions=256),
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 24,
        },
        4,
    ),
}


def parameters(module: nn.Module) -> int:
    """How many weights a model has, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def draw(weight: Tensor, name: str) -> None:
    """Fill a weight: norms with one, biases with zero, the rest from its name, so that each layer matters."""
    if name.endswith("bias"):
        nn.init.zeros_(weight)
    elif "norm" in name:
        nn.init.ones_(weight)
    else:
        # Strong, or the head, which is tied to the embeddings, would only repeat the token that was read.
        std = (0.5 if name == _EMBEDDINGS else 3) * weight[0].numel() ** -0.5
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        for block in weight.view(-1).split(_BLOCK):
            block.copy_(torch.randn(len(block), generator=generator).mul_(std))


@torch.no_grad()
def drawn_xglm(config: XGLMConfig, dtype: torch.dtype) -> XGLM:
    """Our decoder; names are transformers', which has queries, keys and values apart."""
    with torch.device("meta"):
        model = XGLM(config).to(dtype)
    model.to_empty(device="cpu").reset_positions()
    for name, weight in model.named_parameters():
        if "qkv_proj" in name:
            for part, letter in zip(weight.chunk(3), "qkv", strict=True):
                draw(part, name.replace("qkv_proj", f"self_attn.{letter}_proj"))
        else:
            draw(weight, name.replace(".out_proj", ".self_attn.out_proj"))
    model.embed_tokens.weight[config.pad_token_id].zero_()
    return model.eval().requires_grad_(False)


def bridge_config(size: Size) -> CrossAttentionConfig:
    """PAELLA's bridge between the parts of a size."""
    language = size.language
    return CrossAttentionConfig(
        num_layers=language.num_layers,
        d_model=language.d_model,
        d_memory=size.vision["hidden_size"],
        num_heads=language.num_heads,
        reduction=size.reduction,
    )


@torch.no_grad()
def drawn_bridge(size: Size, dtype: torch.dtype) -> CrossAttentionBridge:
    bridge = CrossAttentionBridge(bridge_config(size)).to(dtype)
    for name, weight in bridge.named_parameters():
        draw(weight, f"bridge.{name}")
    return bridge.eval().requires_grad_(False)


@torch.no_grad()
def drawn_vision(size: Size, dtype: torch.dtype) -> HubVisionEncoder:
    """CLIP's image tower, and photos prepared as its repository says."""
    tower = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**size.vision)).to(dtype)
    for name, weight in tower.named_parameters():
        draw(weight, f"vision.{name}")
    side = size.vision["image_size"]
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return HubVisionEncoder(tower.eval().requires_grad_(False), processor, class_token=True, variable=False)


class DrawnEmbedder:
    """Photos by CLIP's pooled vectors, captions at drawn places: a `QueryEmbedder`."""

    def __init__(self, dimension: int) -> None:
        self.id = "drawn"
        self.dimension = dimension

    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        vectors = np.random.default_rng(0).standard_normal((len(texts), self.dimension), np.float32)
        normalised: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised

    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries:
        normalised = nn.functional.normalize(pooled.float(), dim=-1).numpy()
        return Queries(normalised, np.zeros(len(pooled), dtype=np.float32))


class LargeVocabulary:
    """The compact bundle's vocabulary with tokens behind it that no text has, as many as XGLM's."""

    def __init__(self, size: int) -> None:
        self._tokenizer = Tokenizer(default_bundle() / "vocabulary.model")
        self._size = size
        self.special = self._tokenizer.special

    def __len__(self) -> int:
        return self._size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer.encode(texts)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def piece(self, token: int) -> str:
        return self._tokenizer.piece(token) if token < len(self._tokenizer) else f"<{token}>"

    def decode(self, ids: Sequence[int]) -> str:
        """The pieces with spaces between them: different tokens are different texts."""
        return " ".join(self.piece(token) for token in ids)


@dataclass(frozen=True)
class Parts:
    """All of a captioner but its language model."""

    vision: HubVisionEncoder
    embedder: DrawnEmbedder
    datastore: Datastore
    prompts: PromptBuilder
    bridge: CrossAttentionBridge

    @classmethod
    def drawn(cls, size: Size, dtype: torch.dtype, folder: Path) -> "Parts":
        """Of a size, with a datastore of a few captions in `folder`."""
        embedder = DrawnEmbedder(size.vision["projection_dim"])
        source = folder / "captions.jsonl"
        rows = [json.dumps({"text": text}) + "\n" for text in NEIGHBOUR_CAPTIONS]
        source.write_text("".join(rows), encoding="utf-8")
        build_datastore([source], folder / "datastore", embedder)
        vocabulary = LargeVocabulary(size.language.vocab_size)
        return cls(
            vision=drawn_vision(size, dtype),
            embedder=embedder,
            datastore=Datastore.open(folder / "datastore"),
            prompts=PromptBuilder(vocabulary, {"en": load_templates()["en"]}),
            bridge=drawn_bridge(size, dtype),
        )

    def look_at(self, photo: Image.Image) -> tuple[Tensor, list[int]]:
        """A photo's visual tokens (1, N, Dv), and the prompt of its retrieved captions."""
        features = self.vision.encode([photo])
        queries = self.embedder.embed_pooled(features.pooled, features.class_logits)
        ((found,),) = self.datastore.neighbours(queries.vectors, [("en",)], NEIGHBOURS, min_score=-1.0)
        return features.tokens, self.prompts.build("en", [neighbour.text for neighbour in found])

    def captioner(self, language_model: XGLM) -> Captioner:
        """In the class that serves."""
        return Captioner(
            bundle_name="full-size",
            revision="drawn",
            languages=("en",),
            vision=self.vision,
            embedder=self.embedder,
            datastore=self.datastore,
            prompts=self.prompts,
            language_model=language_model,
            bridge=self.bridge,
            defaults=_DEFAULTS,
        )


_DEFAULTS = GenerationDefaults(
    max_tokens=NEW_TOKENS,
    min_tokens=NEW_TOKENS,  # never shorter: a caption costs what it is said to cost
    beams=BEAMS,
    length_penalty=0.0,
    no_repeat_ngram=0,
    neighbours=NEIGHBOURS,
    min_score=-1.0,
    min_score_new=-1.0,
    copy_weight=0.0,
)


def drawn_photos() -> Iterator[Image.Image]:
    """Photos of 640 x 480 pixels with coloured shapes on them, each another."""
    for seed in range(1000):
        generator = np.random.default_rng(seed)
        colours = generator.integers(0, 256, (9, 3))
        photo = Image.new("RGB", (640, 480), tuple(colours[0].tolist()))
        brush = ImageDraw.Draw(photo)
        for colour in colours[1:].tolist():
            left, top = generator.integers(0, 400, 2).tolist()
            width, height = generator.integers(40, 240, 2).tolist()
            shape = brush.ellipse if generator.random() < 0.5 else brush.rectangle
            shape((left, top, left + width, top + height), fill=tuple(colour))
        yield photo
