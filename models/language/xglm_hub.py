"""XGLM as it is on the Hub (`facebook/xglm-564M` and its siblings) into our own decoder."""

from pathlib import Path
from typing import Any

from models.hub_weights import read_config, read_weights
from models.language.xglm import XGLM, XGLMConfig, from_transformers
from retrieval.errors import BundleError

MODEL_TYPE = "xglm"
# Ours ← transformers'.
_NAMES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "num_layers": "num_layers",
    "num_heads": "attention_heads",
    "ffn_dim": "ffn_dim",
    "max_positions": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
    "scale_embedding": "scale_embedding",
}
_DROPOUTS = {"dropout": 0.1, "attention_dropout": 0.1}  # transformers' own, where the file is silent


def load_xglm(folder: Path) -> XGLM:
    """The decoder, frozen, in the dtype of its weights.

    Raises:
        BundleError: not an XGLM, or its weights do not fit its configuration.
    """
    return (
        from_transformers(read_weights(folder), xglm_config(read_config(folder))).eval().requires_grad_(False)
    )


def xglm_config(config: dict[str, Any]) -> XGLMConfig:
    """The shape of a decoder from transformers' configuration of it.

    Raises:
        BundleError: another kind of model, a number is missing, or something that our decoder cannot do.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise BundleError(f"the configuration is of {config.get('model_type')!r}, not of an XGLM")
    if (activation := config.get("activation_function", "gelu")) != "gelu":
        raise BundleError(f"this XGLM's activation is {activation!r}; ours is gelu")
    shape = {ours: config[theirs] for ours, theirs in _NAMES.items() if theirs in config}
    if missing := sorted({"d_model", "num_layers", "num_heads", "ffn_dim"} - shape.keys()):
        raise BundleError(f"the configuration lacks {', '.join(_NAMES[name] for name in missing)}")
    if wrong := [name for name, value in shape.items() if not isinstance(value, int) or value < 0]:
        raise BundleError(f"the configuration's {_NAMES[wrong[0]]} must not be {shape[wrong[0]]!r}")
    dropouts = {name: config.get(name, default) for name, default in _DROPOUTS.items()}
    if wrong := [name for name, value in dropouts.items() if not isinstance(value, int | float)]:
        raise BundleError(f"the configuration's {wrong[0]} must not be {dropouts[wrong[0]]!r}")
    return XGLMConfig(**shape, **dropouts)
