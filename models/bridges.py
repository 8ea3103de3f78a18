"""The bridges by name, and how recipes and bundles write their settings down.

What a bridge is built of is in `models/fusion`; this is the one place that knows them all.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

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


_MAY_BE_ZERO = {"fusion_layer"}  # of all whole numbers that a bridge can be set to


class LanguageModelShape(Protocol):
    """What a bridge needs to know of the language model it is put into."""

    @property
    def num_layers(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def num_heads(self) -> int: ...


_FROM_THE_LANGUAGE_MODEL = {"num_layers", "d_model", "num_heads"}


def build_bridge(kind: BridgeKind, settings: Mapping[str, Any], language: LanguageModelShape) -> Any:
    """A bridge with fresh weights.

    Args:
        settings: fields of its config, those that follow from the language model left out.

    Raises:
        ValueError: a setting is missing, unknown, of another type, too small, or does not fit.
    """
    config_class, bridge_class = _BRIDGES[kind]
    names = {field.name for field in fields(config_class)}
    if unknown := sorted(settings.keys() - (names - _FROM_THE_LANGUAGE_MODEL)):
        raise ValueError(f"a {kind} bridge has no setting {', '.join(unknown)}")
    for name, value in settings.items():
        if isinstance(value, int) and value < (0 if name in _MAY_BE_ZERO else 1):
            raise ValueError(f"{kind} bridge: {name} must not be {value}")
    given = {name: getattr(language, name) for name in names & _FROM_THE_LANGUAGE_MODEL}
    try:
        config = TypeAdapter(config_class).validate_python({**given, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{kind} bridge: {place + ': ' if place else ''}{first['msg']}") from error
    return bridge_class(config)


def bridge_settings(bridge: Any) -> dict[str, Any]:
    """The settings that `build_bridge` makes such a bridge from."""
    return {
        name: value for name, value in vars(bridge.config).items() if name not in _FROM_THE_LANGUAGE_MODEL
    }
