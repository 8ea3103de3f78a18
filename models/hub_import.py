"""A trained bridge and models in the Hub's cache → a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.bridges import bridge_settings
from models.fusion.cross_attention import CrossAttentionBridge
from models.hub_files import verified_folder
from models.hub_parts import load_language_folder
from models.language.hub import HubConfig
from models.language.xglm import XGLMConfig
from models.manifest import (
    BridgeKind,
    BridgePart,
    BundleManifest,
    GenerationDefaults,
    HubEmbedderPart,
    HubLanguagePart,
    HubReference,
    HubVisionPart,
    TemplatePart,
    record_file,
    require_empty,
    revision_of,
    write_manifest,
)
from models.paella_checkpoint import Family, PaellaCheckpoint
from models.text.hub import load_hub_text
from models.vision.hub import load_hub_vision
from models.weights import load_weights
from retrieval.errors import BundleError, InvalidRequestError

BRIDGE = "bridge.safetensors"
# As the papers have them, section 4: beam search with 3 beams, at most 25 tokens, 4 captions in the prompt.
_DEFAULTS = GenerationDefaults(
    max_tokens=25,
    min_tokens=3,
    beams=3,
    length_penalty=0.0,
    no_repeat_ngram=0,
    neighbours=4,
    min_score=-1.0,
    min_score_new=-1.0,
    copy_weight=0.0,
)
_LICENCE = "The parts have licences of their own; see their repositories."


@dataclass(frozen=True)
class HubModels:
    """What a bridge was trained between.

    Attributes:
        vision: the image encoder, whose photos retrieval compares with captions.
        language: the language model with its tokenizer.
        text: what reads those captions; None for the text side of `vision`.
    """

    vision: HubReference
    language: HubReference
    text: HubReference | None = None


def import_paella(
    checkpoint: PaellaCheckpoint,
    models: HubModels,
    output: Path,
    *,
    languages: Sequence[str],
    templates: Mapping[str, TemplatePart],
    end: str | None,
) -> BundleManifest:
    """Write a bundle; its datastore is built into it afterwards.

    Args:
        output: a folder that does not exist yet or is empty; its name names the bundle.
        languages: codes that the bridge was trained for, or that retrieval is to carry.
        templates: prompts in place of the project's, by language.
        end: text of the token that ends a caption; None for the tokenizer's end of sequence.

    Raises:
        BundleError: a part cannot be loaded, or the checkpoint does not fit the parts.
        InvalidRequestError: there is something in `output`.
    """
    require_empty(output)
    shapes = hub_shapes(models)
    if shapes.width != checkpoint.d_memory:
        raise BundleError(
            f"the checkpoint reads visual tokens of {checkpoint.d_memory}, those of {models.vision.repo} "
            f"have {shapes.width}"
        )
    language = shapes.language
    config = checkpoint.config(language.num_layers, language.d_model, language.num_heads)
    bridge = CrossAttentionBridge(config)
    load_weights(bridge, checkpoint.weights, "bridge")
    return write_hub_bundle(
        "cross_attention",
        bridge,
        models,
        shapes,
        output,
        languages=languages,
        templates=templates,
        end=end,
        provenance=f"Bridge: a checkpoint of {_NAMES[checkpoint.family]}, imported.",
    )


@dataclass(frozen=True)
class HubShapes:
    """Of the models that a bridge lies between."""

    tokens: int  # visual tokens of an image
    width: int  # of each
    embedder: HubEmbedderPart
    language: HubConfig | XGLMConfig


def hub_shapes(models: HubModels) -> HubShapes:
    """Load the models once to see.

    Raises:
        BundleError: one cannot be loaded, or captions cannot be compared with photos.
    """
    vision = load_hub_vision(verified_folder(models.vision))
    tokens, width = vision.shape()
    embedder = _embedder_part(models, vision.pooled_width())
    language = load_language_folder(verified_folder(models.language), torch.bfloat16)
    return HubShapes(tokens, width, embedder, language.config)


def write_hub_bundle(
    kind: BridgeKind,
    bridge: Any,
    models: HubModels,
    shapes: HubShapes,
    output: Path,
    *,
    languages: Sequence[str],
    templates: Mapping[str, TemplatePart],
    end: str | None,
    provenance: str,
) -> BundleManifest:
    """Write a bundle of a bridge, and of references to the models that it lies between.

    Args:
        kind: of the bridge.
        output, languages, templates, end: as of `import_paella`.
        provenance: what the bridge was trained on.

    Raises:
        InvalidRequestError: there is something in `output`.
    """
    require_empty(output)
    language = shapes.language
    output.mkdir(parents=True, exist_ok=True)
    save_file(bridge.state_dict(), output / BRIDGE)
    files = {BRIDGE: record_file(output / BRIDGE)}
    manifest = BundleManifest(
        format_version=1,
        name=output.absolute().name,
        revision=revision_of(files, (models.vision, shapes.embedder.text_side, models.language)),
        languages=tuple(sorted(languages)),
        vision=HubVisionPart(kind="hub", hub=models.vision, tokens=shapes.tokens, width=shapes.width),
        embedder=shapes.embedder,
        language=HubLanguagePart(
            kind="hub",
            hub=models.language,
            vocab_size=language.vocab_size,
            d_model=language.d_model,
            num_layers=language.num_layers,
            num_heads=language.num_heads,
            max_positions=language.max_positions,
            end=end,
        ),
        bridge=BridgePart(kind=kind, file=BRIDGE, **bridge_settings(bridge)),
        generation=_DEFAULTS,
        templates=dict(templates),
        licence=_LICENCE,
        provenance=provenance,
        files=files,
    )
    write_manifest(manifest, output)
    return manifest


def _embedder_part(models: HubModels, dimension: int) -> HubEmbedderPart:
    """The embedder whose photos have so many dimensions, once its captions are known to have as many.

    Raises:
        BundleError: they have not, or there is no text side.
    """
    part = HubEmbedderPart(
        kind="hub",
        id="+".join(f"{one.repo}@{one.revision[:12]}" for one in (models.vision, models.text) if one),
        hub=models.vision,
        text=models.text,
        dimension=dimension,
    )
    found = load_hub_text(verified_folder(part.text_side)).encode(["a"]).shape[1]
    if found != dimension:
        raise BundleError(
            f"captions of {part.text_side.repo} have {found} dimensions, photos of {models.vision.repo} have "
            f"{dimension}: take a text encoder that was made for this image encoder"
        )
    return part


def default_language_model(checkpoint: PaellaCheckpoint) -> str:
    """The model on the Hub that a checkpoint of this shape was published for.

    Raises:
        InvalidRequestError: none is known.
    """
    shape = checkpoint.family, checkpoint.num_layers, checkpoint.d_model
    if shape not in _LANGUAGE_MODELS:
        raise InvalidRequestError(
            f"the checkpoint is for {shape[1]} layers of {shape[2]}: name its --language-model"
        )
    return _LANGUAGE_MODELS[shape]


_LANGUAGE_MODELS: dict[tuple[Family, int, int], str] = {
    ("paella", 24, 1024): "facebook/xglm-564M",
    ("paella", 24, 2048): "facebook/xglm-1.7B",
    ("paella", 48, 2048): "facebook/xglm-2.9B",  # the 4.5B has the same shape; PAELLA's is this
    ("smallcap", 12, 768): "openai-community/gpt2",
}
_NAMES: dict[Family, str] = {"paella": "PAELLA", "smallcap": "SmallCap"}
# What the released weights were trained with, in English; for PAELLA's other languages the project's prompts.
PROMPTS: dict[Family, TemplatePart] = {
    "paella": TemplatePart(
        opening="Similar images show",
        closing="A caption I can generate to describe this image in english is:",
    ),
    "smallcap": TemplatePart(opening="Similar images show", closing="This image shows"),
}
END = "."  # with which released weights end a caption
