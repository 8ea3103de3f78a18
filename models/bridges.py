"""The bridges by name, and how recipes and bundles write their settings down.

What a bridge is built of is in `models/fusion`; this is the one place that knows them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from models.fusion.bottleneck import BottleneckBridge, BottleneckConfig
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.gated_cross_attention import GatedCrossAttentionBridge, GatedCrossAttentionConfig
from models.fusion.query_transformer import QueryTransformerBridge, QueryTransformerConfig
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.manifest import BridgeKind

_BRIDGES: dict[BridgeKind, tuple[type[Any], type[nn.Module]]] = {
    "cross_attention": (CrossAttentionConfig, CrossAttentionBridge),
    "gated_cross_attention": (GatedCrossAttentionConfig, GatedCrossAttentionBridge),
    "query_transformer": (QueryTransformerConfig, QueryTransformerBridge),
    "visual_prefix": (VisualPrefixConfig, VisualPrefixBridge),
    "bottleneck": (BottleneckConfig, BottleneckBridge),
}


@dataclass(frozen=True)
class LanguageModelShape:
    """What a bridge needs to know of the language model it is put into."""

    num_layers: int
    d_model: int
    num_heads: int


def build_bridge(kind: BridgeKind, settings: Mapping[str, Any], language: LanguageModelShape) -> Any:
    """A bridge with fresh weights.

    Args:
        settings: fields of its config, those that follow from the language model left out.

    Raises:
        ValueError: a setting is missing, unknown, of another type, or does not fit the language model.
    """
    config_class, bridge_class = _BRIDGES[kind]
    names = {field.name for field in fields(config_class)}
    given = {name: value for name, value in vars(language).items() if name in names and name not in settings}
    if unknown := sorted(settings.keys() - names):
        raise ValueError(f"a {kind} bridge has no setting {', '.join(unknown)}")
    try:
        config = TypeAdapter(config_class).validate_python({**given, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{kind} bridge: {place + ': ' if place else ''}{first['msg']}") from error
    return bridge_class(config)
