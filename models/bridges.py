"""The bridges by name, and how recipes and bundles write their settings down.

What a bridge is built of is in `models/fusion`; this is the one place that knows them all.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from models.fusion.bottleneck import BottleneckBridge, BottleneckConfig
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.gated_cross_attention import GatedCrossAttentionBridge, GatedCrossAttentionConfig
from models.fusion.query_transformer import QueryTransformerBridge, QueryTransformerConfig
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.language.decoding import LanguageModelShape
from models.manifest import BridgeKind
from models.shapes import build_config

_BRIDGES: dict[BridgeKind, tuple[type[Any], type[nn.Module]]] = {
    "cross_attention": (CrossAttentionConfig, CrossAttentionBridge),
    "gated_cross_attention": (GatedCrossAttentionConfig, GatedCrossAttentionBridge),
    "query_transformer": (QueryTransformerConfig, QueryTransformerBridge),
    "visual_prefix": (VisualPrefixConfig, VisualPrefixBridge),
    "bottleneck": (BottleneckConfig, BottleneckBridge),
}


_MAY_BE_ZERO = {"fusion_layer"}  # of all whole numbers that a bridge can be set to


_FROM_THE_LANGUAGE_MODEL = {"num_layers", "d_model", "num_heads"}


def build_bridge(kind: BridgeKind, settings: Mapping[str, Any], language: LanguageModelShape) -> Any:
    """A bridge with fresh weights.

    Args:
        settings: fields of its config, those that follow from the language model left out.

    Raises:
        ValueError: a setting is missing, unknown, of another type, too small, or does not fit.
    """
    config_class, bridge_class = _BRIDGES[kind]
    wanted = {field.name for field in fields(config_class)} & _FROM_THE_LANGUAGE_MODEL
    given = {name: getattr(language, name) for name in wanted}
    config = build_config(config_class, settings, given, part=f"{kind} bridge", may_be_zero=_MAY_BE_ZERO)
    return bridge_class(config)


def bridge_settings(bridge: Any) -> dict[str, Any]:
    """The settings that `build_bridge` makes such a bridge from."""
    return {
        name: value for name, value in vars(bridge.config).items() if name not in _FROM_THE_LANGUAGE_MODEL
    }
