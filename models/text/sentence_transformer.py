"""Text encoders as sentence-transformers saves them: a list of modules, and a folder for each.

clip-ViT-B-32-multilingual-v1 (Reimers and Gurevych, EMNLP 2020) is a DistilBERT, the mean of its tokens and a
linear map into CLIP ViT-B/32's space. The modules are read as what they say they are; their code is not run.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.hub_loading import load_pretrained, load_tokenizer
from models.hub_weights import read_config, read_weights
from models.text.pooling import mean_of_tokens, run_encoder, text_device
from models.weights import load_weights
from retrieval.errors import BundleError

MODULES = "modules.json"
_SETTINGS = "sentence_bert_config.json"
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
}


class SentenceTower:
    """A `TextTower` (retrieval/image_text.py): transformer, pooling, and dense layers behind them.

    Raises:
        BundleError: something is missing, or a module is of a kind that is not read.
    """

    def __init__(self, folder: Path) -> None:
        steps = _read_modules(folder)
        if [kind for kind, _ in steps[:2]] != ["Transformer", "Pooling"] or steps[0][1] != folder:
            raise BundleError(f"{folder / MODULES} does not begin with a transformer and its pooling")
        self._model: Any = load_pretrained(["AutoModel"], folder, "text encoder").float().to(text_device())
        self._tokenizer: Any = load_tokenizer(folder)
        settings = read_config(folder, _SETTINGS) if (folder / _SETTINGS).is_file() else {}
        longest = getattr(self._model.config, "max_position_embeddings", self._tokenizer.model_max_length)
        self._length = int(settings.get("max_seq_length") or min(self._tokenizer.model_max_length, longest))
        self._lower = bool(settings.get("do_lower_case"))
        self._pool = _pooling(steps[1][1])
        self._dense = nn.Sequential(*(_layer(kind, place) for kind, place in steps[2:]))
        self._dense.eval().requires_grad_(False).to(text_device())

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, E) of texts; what is longer than the model reads is cut."""
        given = [text.strip().lower() if self._lower else text.strip() for text in texts]
        hidden, mask = run_encoder(self._model, self._tokenizer, given, self._length)
        embedded: Tensor = self._dense(self._pool(hidden, mask))
        return embedded


class _UnitLength(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


def _read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    try:
        listed = json.loads((folder / MODULES).read_bytes())
        found = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MODULES} cannot be read: {error}") from error
    if wrong := [path for _, path in found if Path(path).name != path and path]:
        raise BundleError(f"{folder / MODULES} names a module elsewhere: {wrong[0]}")
    return [(kind, folder / path) for kind, path in found]


def _pooling(folder: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """How hidden states (N, T, D) and their mask (N, T) become vectors (N, D)."""
    settings = read_config(folder)
    chosen = [name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True]
    chosen = [name for name in chosen if f"pooling_mode_{name}" in settings]
    chosen = chosen or [str(settings.get("pooling_mode"))]  # how newer versions write it
    if chosen in (["mean_tokens"], ["mean"]):
        return mean_of_tokens
    if chosen in (["cls_token"], ["cls"]):
        return lambda hidden, _: hidden[:, 0]
    raise BundleError(f"{folder}: pooling by {' and '.join(chosen)} is not read, only mean and cls")


def _layer(kind: str, folder: Path) -> nn.Module:
    if kind == "Normalize":
        return _UnitLength()
    if kind != "Dense":
        raise BundleError(f"{folder.parent / MODULES}: a module of the kind {kind} is not read")
    settings = read_config(folder)
    activation = str(settings.get("activation_function", "Identity")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise BundleError(f"{folder}: the activation {activation} is not read ({', '.join(_ACTIVATIONS)})")
    weights = {name.removeprefix("linear."): weight for name, weight in read_weights(folder).items()}
    if "weight" not in weights or weights["weight"].dim() != 2:
        raise BundleError(f"{folder}: the dense layer has no matrix")
    out_features, in_features = weights["weight"].shape
    with torch.device("meta"):
        linear = nn.Linear(in_features, out_features, bias="bias" in weights)
    load_weights(linear, weights, "dense layer", assign=True)
    return nn.Sequential(linear.float(), _ACTIVATIONS[activation]())
