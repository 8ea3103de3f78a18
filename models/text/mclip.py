"""M-CLIP's text encoders (Carlsson et al., LREC 2022): XLM-R, the mean of its tokens, a linear map.

Their configuration names the encoder that they were made of and not its shape; that follows from the weights,
because XLM-R's heads are 64 wide in all its sizes. Texts in 48 languages come out in the space of the CLIP
that the repository is named after.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.hub_loading import load_tokenizer
from models.hub_weights import read_config, read_weights
from models.text.pooling import mean_of_tokens, run_encoder, text_device
from models.weights import load_weights
from retrieval.errors import BundleError
from retrieval.hub_library import transformers_library

MODEL_TYPE = "M-CLIP"
_ENCODER, _MAP = "transformer.", "LinearTransformation."
_BASE = re.compile(r"(?:[\w-]+/)?xlm-roberta-(?:base|large)")
_HEAD_WIDTH = 64
_SPECIAL_POSITIONS = 2  # XLM-R's positions are counted from behind that of padding
_BUFFERS = {f"{_ENCODER}embeddings.position_ids"}  # that older versions saved


class MultilingualClipTower:
    """A `TextTower` (retrieval/image_text.py).

    Raises:
        BundleError: it is not made of XLM-R, or weights are missing.
    """

    def __init__(self, folder: Path) -> None:
        base = str(read_config(folder).get("modelBase"))
        if not _BASE.fullmatch(base):
            raise BundleError(f"{folder} is an {MODEL_TYPE} made of {base!r}; only XLM-R is read")
        weights = {name: w for name, w in read_weights(folder).items() if name not in _BUFFERS}
        encoder = _part(weights, _ENCODER)
        self._model: Any = _build(encoder, folder)
        self._length = int(self._model.config.max_position_embeddings) - _SPECIAL_POSITIONS
        mapped = _part(weights, _MAP)
        if "weight" not in mapped:
            raise BundleError(f"{folder}: the text encoder's weights lack {_MAP}weight")
        with torch.device("meta"):
            self._map = nn.Linear(mapped["weight"].shape[1], mapped["weight"].shape[0])
        load_weights(self._map, mapped, "text encoder", assign=True)
        self._model.eval().requires_grad_(False).float().to(text_device())
        self._map.requires_grad_(False).float().to(text_device())
        self._tokenizer: Any = load_tokenizer(folder)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, E) of texts; what is longer than the model reads is cut."""
        hidden, mask = run_encoder(self._model, self._tokenizer, texts, self._length)
        embedded: Tensor = self._map(mean_of_tokens(hidden, mask))
        return embedded


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def _build(weights: dict[str, Tensor], folder: Path) -> Any:
    """An XLM-R of the shape that its weights have."""
    try:
        vocabulary, width = weights["embeddings.word_embeddings.weight"].shape
        positions = len(weights["embeddings.position_embeddings.weight"])
        inner = len(weights["encoder.layer.0.intermediate.dense.weight"])
    except KeyError as error:
        raise BundleError(f"{folder}: the text encoder's weights lack {_ENCODER}{error.args[0]}") from error
    layers = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")}
    library = transformers_library()
    config = library.XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, width // _HEAD_WIDTH),
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = library.XLMRobertaModel(config, add_pooling_layer=any(n.startswith("pooler.") for n in weights))
    load_weights(model, weights, "text encoder")
    return model
