"""Parts of a bundle that are references to the Hub: loaded from its cache and held against the manifest."""

from pathlib import Path

import torch

from models.hub_files import verified_folder
from models.hub_weights import read_config
from models.language.hub import HubLanguageModel, load_hub_language_model
from models.language.hub_tokenizer import HubTokenizer
from models.language.xglm import XGLM
from models.language.xglm_hub import MODEL_TYPE, load_xglm
from models.manifest import HubEmbedderPart, HubLanguagePart, HubVisionPart
from models.text.hub import load_hub_text
from models.vision.hub import HubVisionEncoder, load_hub_vision
from retrieval.errors import BundleError
from retrieval.image_text import ImageTextEmbedder


def load_hub_language(part: HubLanguagePart, dtype: torch.dtype) -> XGLM | HubLanguageModel:
    """The language model, frozen: an XGLM in our own decoder, any other in transformers'.

    Raises:
        BundleError: files are missing or damaged, or it has another shape than the manifest says.
    """
    model = load_language_folder(verified_folder(part.hub), dtype)
    for name in ("vocab_size", "d_model", "num_layers", "num_heads", "max_positions"):
        found, expected = getattr(model.config, name), getattr(part, name)
        if found != expected:
            raise BundleError(f"{part.hub.repo}: {name} is {found}, the manifest says {expected}")
    return model


def load_language_folder(folder: Path, dtype: torch.dtype) -> XGLM | HubLanguageModel:
    """As `load_hub_language`, from a folder in the Hub's format."""
    if read_config(folder).get("model_type") == MODEL_TYPE:
        return load_xglm(folder).to(dtype)
    return load_hub_language_model(folder, dtype)


def load_hub_tokenizer(part: HubLanguagePart) -> HubTokenizer:
    """The language model's tokenizer.

    Raises:
        BundleError: files are missing or damaged, or it does not fit.
    """
    return HubTokenizer(verified_folder(part.hub), part.vocab_size, part.end)


def load_hub_vision_part(part: HubVisionPart, dtype: torch.dtype) -> HubVisionEncoder:
    """The image encoder.

    Raises:
        BundleError: files are missing or damaged, or its visual tokens are not those of the manifest.
    """
    encoder = load_hub_vision(verified_folder(part.hub), dtype)
    if (found := encoder.shape()) != (part.tokens, part.width):
        raise BundleError(
            f"{part.hub.repo}: an image has {found[0]} tokens of {found[1]}, the manifest says "
            f"{part.tokens} of {part.width}"
        )
    return encoder


def load_hub_embedder(part: HubEmbedderPart) -> ImageTextEmbedder:
    """The embedder; its text side is loaded when it is needed.

    Raises:
        BundleError: files are missing or damaged.
    """
    folder = verified_folder(part.text_side)
    return ImageTextEmbedder(part.id, part.dimension, lambda: load_hub_text(folder))
