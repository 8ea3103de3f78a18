"""Any causal language model in the Hub's format, with the bridges in its layers.

The model's code is transformers' own, through `AutoModelForCausalLM`; weights are safetensors, and code of
a repository is never run. What is added: a bridge in every layer (models/language/hub_bridging.py), batches
of prompts of different lengths, and the cache of beams (models/language/hub_continuation.py).
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.fusion.bridge import Bridge, BridgeState
from models.hub_loading import load_pretrained
from models.language.decoding import LayerAttention
from models.language.hub_bridging import LayerHooks, decoder_layers
from models.language.hub_continuation import HubContinuation
from retrieval.errors import BundleError, InvalidRequestError
from retrieval.hub_library import transformers_library

_LAYER_TYPES = {"full_attention", "sliding_attention"}
_PROBE = 5  # tokens that a model is tried on


@dataclass(frozen=True)
class HubConfig:
    """Shape of a decoder from the Hub."""

    num_layers: int
    d_model: int
    num_heads: int
    max_positions: int
    vocab_size: int  # rows of the embeddings, of which the last may belong to no token


class HubLanguageModel(nn.Module):
    """A causal language model of transformers; a `LanguageModel` (models/language/decoding.py).

    Raises:
        BundleError: its layers cannot be found, or its scores are not its head's.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        whole: Any = model
        text = whole.config.get_text_config(decoder=True)
        if whole.get_output_embeddings() is None:
            raise BundleError(f"{type(whole).__name__} has no head over a vocabulary")
        if other := sorted({*(getattr(text, "layer_types", None) or ())} - _LAYER_TYPES):
            raise BundleError(
                f"{type(whole).__name__} has layers of {', '.join(other)}, whose past cannot be reordered as "
                "beams are"
            )
        self.model = model.eval()
        # In lists, or torch would count them as further parts of this module.
        self._decoder: Any = [whole.get_decoder()]
        self._head: Any = [whole.get_output_embeddings()]
        self.config = HubConfig(
            num_layers=text.num_hidden_layers,
            d_model=text.hidden_size,
            num_heads=text.num_attention_heads,
            # BLOOM's positions have no end; 2048 is what its models were trained with.
            max_positions=getattr(text, "max_position_embeddings", None) or 2048,
            vocab_size=whole.get_input_embeddings().weight.shape[0],
        )
        # BLOOM knows a token's position from the attention mask.
        self._takes_positions = "position_ids" in inspect.signature(self._decoder[0].forward).parameters
        probe = torch.arange(_PROBE, device=self.device)[None] % self.config.vocab_size
        layers = decoder_layers(self._decoder[0], self.config.num_layers)
        with torch.no_grad():
            self._hooks = LayerHooks(layers, lambda: self._decoder[0](input_ids=probe, use_cache=False))
            self._after_head = self._find_after_head(text, probe)

    @property
    def dtype(self) -> torch.dtype:
        weight: Tensor = self._head[0].weight
        return weight.dtype

    @property
    def device(self) -> torch.device:
        weight: Tensor = self._head[0].weight
        return weight.device

    @property
    def bridged_inside(self) -> bool:
        """Whether the image enters between self-attention and feed-forward block of every layer."""
        return all(self._hooks.inside)

    def forward(
        self,
        input_ids: Tensor,
        *,
        bridge: Bridge[Any] | None = None,
        bridge_state: BridgeState | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) of tokens (B, T), padded on the right if at all, without a cache."""
        prefix = None if bridge is None or bridge_state is None else bridge.prefix(bridge_state)
        text = self._behind(prefix, input_ids)
        hidden = self.run(text, None, None, bridge=bridge, state=bridge_state, rows=len(input_ids))
        return hidden[:, -input_ids.shape[1] :]

    def recompute_layers(self) -> None:
        """Train with less memory: compute each layer once more in the backward pass, the bridge included."""
        self._hooks.recompute_layers()

    def watch(
        self, input_ids: Tensor, *, bridge: Bridge[Any], bridge_state: BridgeState
    ) -> list[LayerAttention]:
        """What each layer looks at when it reads sequences (models/language/decoding.py).

        Raises:
            InvalidRequestError: transformers' code of this model does not tell.
        """
        text = self._behind(bridge.prefix(bridge_state), input_ids)
        with self._hooks.watching(bridge, bridge_state, len(input_ids)) as image:
            output = self._telling(**text, use_cache=False, output_attentions=True)
        own = output.attentions or ()
        if len(own) != self.config.num_layers or any(weights is None for weights in own):
            raise InvalidRequestError(
                f"{type(self.model).__name__} does not tell where it looks: ask without explain"
            )
        return [LayerAttention(weights.float(), image.get(index)) for index, weights in enumerate(own)]

    def _behind(self, prefix: Tensor | None, input_ids: Tensor) -> dict[str, Tensor]:
        """What the decoder is given to read tokens behind a soft prompt, if there is one."""
        if prefix is None:
            return {"input_ids": input_ids}
        return {"inputs_embeds": torch.cat([prefix.to(self.dtype), self.embed(input_ids)], dim=1)}

    @cached_property
    def _telling(self) -> Any:
        """The decoder once more, with the same weights and hooks, computed so that its attention is known.

        The fast way of attention keeps its weights to itself, and which way a model takes stands in its
        configuration. That is not changed under the feet of another thread.
        """
        shared: list[Any] = [*self.model.parameters(), *self.model.buffers(), self._hooks]
        other: Any = copy.deepcopy(self.model, {id(one): one for one in shared})
        other.set_attn_implementation("eager")
        return other.get_decoder()

    def embed(self, input_ids: Tensor) -> Tensor:
        """What the model makes of tokens before its first layer: (B, T, D)."""
        model: Any = self.model
        embedded: Tensor = model.get_input_embeddings()(input_ids)
        return embedded

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Scores over the vocabulary (..., V) of hidden states (..., D)."""
        scores: Tensor = self._after_head(self._head[0](hidden_states))
        return scores

    def new_cache(self) -> Any:
        """An empty cache as this model wants it: layers with a sliding window keep no more than that."""
        whole: Any = self.model
        return transformers_library().DynamicCache(config=whole.config)

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        width: int,
        max_new_tokens: int,
        bridge: Bridge[Any] | None = None,
        bridge_state: BridgeState | None = None,
    ) -> HubContinuation:
        """Read prompts, to be continued by `width` sequences each (models/language/decoding.py)."""
        return HubContinuation(self, prompts, bridge=bridge, bridge_state=bridge_state)

    def run(
        self,
        text: Mapping[str, Tensor],
        mask: Tensor | None,
        positions: Tensor | None,
        *,
        cache: Any = None,
        bridge: Bridge[Any] | None = None,
        state: BridgeState | None = None,
        rows: int,
    ) -> Tensor:
        """Hidden states (B, T, D) of `input_ids` (B, T) or `inputs_embeds` (B, T, D).

        Args:
            mask: (B, K) int64, 1 at real tokens of the past and now; None if nothing is padded.
            positions: (B, T), place of each token in its sentence; None: as they come.
            rows: images of the state; row b of the text belongs to image b * rows // B.
        """
        given: dict[str, Any] = dict(text)
        if mask is not None:
            given["attention_mask"] = mask
        if positions is not None and self._takes_positions:
            given["position_ids"] = positions
        bridging = (
            nullcontext() if bridge is None or state is None else self._hooks.bridging(bridge, state, rows)
        )
        with bridging:
            output = self._decoder[0](**given, past_key_values=cache, use_cache=cache is not None)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _find_after_head(self, text: Any, probe: Tensor) -> Callable[[Tensor], Tensor]:
        """What this model does with its head's scores, found by comparing with its own logits."""
        whole: Any = self.model
        expected = whole(input_ids=probe, use_cache=False).logits.float()
        raw = self._head[0](self._decoder[0](input_ids=probe, use_cache=False).last_hidden_state)
        cap = getattr(text, "final_logit_softcapping", None)  # Gemma 2
        factor = getattr(text, "logit_scale", None)  # Cohere
        divisor = getattr(text, "logits_scaling", None)  # Granite
        candidates: list[Callable[[Tensor], Tensor]] = []
        if cap:
            candidates.append(lambda scores: (scores / cap).tanh() * cap)
        if factor:
            candidates.append(lambda scores: scores * factor)
        if divisor:
            candidates.append(lambda scores: scores / divisor)
        # Last: where scores are small, a cap looks like nothing at all.
        candidates.append(lambda scores: scores)
        for candidate in candidates:
            if torch.allclose(candidate(raw).float(), expected, rtol=1e-2, atol=1e-3):
                return candidate
        raise BundleError(f"{type(whole).__name__} does something unknown with its head's scores")


def load_hub_language_model(folder: Path, dtype: torch.dtype = torch.float32) -> HubLanguageModel:
    """The causal language model in a folder of the Hub's format, frozen.

    Raises:
        BundleError: transformers is missing, it knows no such model, weights are missing or not safetensors.
    """
    model = load_pretrained(["AutoModelForCausalLM"], folder, "causal language model", dtype=dtype)
    return HubLanguageModel(model)
