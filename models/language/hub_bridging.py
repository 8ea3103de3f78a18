"""A bridge into the layers of a decoder that is not ours: found by structure, reached by hooks.

The image belongs between a layer's self-attention and its feed-forward block (models/fusion/bridge.py).
There the residual stream h goes into a module, as a rule the norm before the feed-forward block, and past it.
A hook gives that module h' = bridge(h), and one on the whole layer adds h' - h to what went past. Nothing of
the model's code is copied or changed.

Whether that is so for a model is not taken from its name but tried: with h' a constant, what comes out of the
layer must be the same at every position. Where it is not, as in layers that compute both blocks side by side,
the image enters behind the layer.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.fusion.bridge import Bridge, BridgeState
from retrieval.errors import BundleError

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_NORM = re.compile(r"norm", re.IGNORECASE)
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3}  # of outputs that must be equal
_TOLERANCE = 2e-2  # of those in half precision


def decoder_layers(model: nn.Module, count: int) -> list[nn.Module]:
    """The layers of a decoder: its one list of so many modules of which each attends.

    Raises:
        BundleError: there is no such list, or more than one.
    """
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(any(_is_attention(name, child) for name, child in layer.named_children()) for layer in module)
    ]
    if len(found) != 1:
        raise BundleError(
            f"{type(model).__name__} has {len(found)} lists of {count} layers with attention, not one: "
            "bridges do not know where to enter"
        )
    return list(found[0])


def _is_attention(name: str, module: nn.Module) -> bool:
    return bool(_ATTENTION.search(name)) and not _is_norm(module) and any(True for _ in module.parameters())


def _is_norm(module: nn.Module) -> bool:
    return bool(_NORM.search(type(module).__name__))


@dataclass
class _Active:
    """What the hooks do during one forward pass."""

    mix: Callable[[int, Tensor], Tensor]  # hidden states of a layer with the image mixed in
    added: dict[int, Tensor] = field(default_factory=dict)  # layer → h' - h, between the two hooks
    done: set[int] = field(default_factory=set)  # layers whose output has the image in it already


class LayerHooks:
    """The hooks of all layers. Passes of several threads do not meet.

    Args:
        layers: the decoder's.
        run: runs the model on a few tokens, so that the places can be found.
    """

    def __init__(self, layers: Sequence[nn.Module], run: Callable[[], object]) -> None:
        self._thread = threading.local()
        self._layers = layers
        places = _find_places(layers, run)
        handles = self._register(places)
        sound = self._try_places(run)
        if not all(sound):
            for handle in handles:
                handle.remove()
            places = [place if good else None for place, good in zip(places, sound, strict=True)]
            self._register(places)
        self.inside = tuple(place is not None for place in places)  # by layer: not only behind it

    @contextmanager
    def bridging(self, bridge: Bridge[Any], state: BridgeState, rows: int) -> Iterator[None]:
        """Let the image of `rows` images in while the model runs; each may have several rows in turn."""

        def mix(index: int, hidden: Tensor) -> Tensor:
            # Rows of one image are further positions of it: its keys and values need not be repeated.
            mixed = bridge.layer(index, hidden.reshape(rows, -1, hidden.shape[-1]), state)
            return mixed.reshape_as(hidden)

        with self._mixing(mix):
            yield

    @contextmanager
    def watching(
        self, bridge: Bridge[Any], state: BridgeState, rows: int
    ) -> Iterator[dict[int, Tensor | None]]:
        """As `bridging`, with what each layer's text looks at of the image: (rows, H, T, S), filled in."""
        seen: dict[int, Tensor | None] = {}

        def mix(index: int, hidden: Tensor) -> Tensor:
            shaped = hidden.reshape(rows, -1, hidden.shape[-1])
            mixed, seen[index] = bridge.layer_with_weights(index, shaped, state)
            return mixed.reshape_as(hidden)

        with self._mixing(mix):
            yield seen

    @contextmanager
    def _mixing(self, mix: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
        before = getattr(self._thread, "active", None)
        self._thread.active = _Active(mix)
        try:
            yield
        finally:
            self._thread.active = before

    def recompute_layers(self) -> None:
        """From now on recompute each layer in the backward pass, instead of keeping what is in it.

        The image is part of that, so what the hooks do behind a layer moves into its `forward`. The backward
        pass may run in a thread of its own, and outside of `bridging`.
        """
        for index, layer in enumerate(self._layers):
            whole: Any = layer
            whole.forward = partial(self._recomputed, index, whole.forward)

    def _recomputed(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        active: _Active | None = getattr(self._thread, "active", None)
        if active is None or not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        mix = active.mix

        def run(*args: Any, **kwargs: Any) -> Any:
            with self._mixing(mix):
                return self._mixed_output(index, forward(*args, **kwargs))

        output = checkpoint(run, *args, use_reentrant=False, **kwargs)
        active.done.add(index)
        return output

    def _register(self, places: Sequence[nn.Module | None]) -> list[Any]:
        handles: list[Any] = []
        for index, (layer, place) in enumerate(zip(self._layers, places, strict=True)):
            if place is not None:
                handles.append(
                    place.register_forward_pre_hook(partial(self._before, index), with_kwargs=True)
                )
            handles.append(layer.register_forward_hook(partial(self._behind, index)))
        return handles

    def _before(
        self, index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        active: _Active | None = getattr(self._thread, "active", None)
        if active is None:
            return None
        hidden = _first(args, kwargs)
        mixed = active.mix(index, hidden)
        active.added[index] = mixed - hidden
        if args:
            return (mixed, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): mixed}

    def _behind(self, index: int, _: nn.Module, __: object, output: Any) -> Any:
        active: _Active | None = getattr(self._thread, "active", None)
        if active is None:
            return None
        if index in active.done:
            active.done.remove(index)
            return None
        return self._mixed_output(index, output)

    def _mixed_output(self, index: int, output: Any) -> Any:
        """What a layer gave, with what `_before` put in; all of it here where there was no place inside."""
        active: _Active = self._thread.active
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden = (
            hidden + active.added.pop(index).reshape_as(hidden)  # OPT flattens its positions in between
            if index in active.added
            else active.mix(index, hidden)
        )
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    def _try_places(self, run: Callable[[], object]) -> list[bool]:
        """For each layer whether its output follows from what was put in at its place, and nothing else."""
        outputs: dict[int, Tensor] = {}
        largest: dict[int, float] = {}  # h' - h is rounded as h is

        def constant(index: int, hidden: Tensor) -> Tensor:
            largest[index] = float(hidden.abs().max())
            return torch.linspace(-1, 1, hidden.shape[-1]).to(hidden).expand_as(hidden)

        # Run behind the hooks above, because they were registered first.
        handles = [
            layer.register_forward_hook(partial(_keep_output, outputs, index))
            for index, layer in enumerate(self._layers)
        ]
        with self._mixing(constant):
            run()
        for handle in handles:
            handle.remove()
        sound = []
        for index, output in sorted(outputs.items()):
            tolerance = _TOLERANCES.get(output.dtype, _TOLERANCE)
            apart = float((output - output[:, :1]).abs().max())
            sound.append(apart <= tolerance * max(largest[index], float(output.abs().max())))
        return sound


@dataclass
class _Call:
    """One child of a layer, as it was called."""

    module: nn.Module
    attends: bool
    given: Tensor | None
    returned: Tensor | None = None


def _find_places(layers: Sequence[nn.Module], run: Callable[[], object]) -> list[nn.Module | None]:
    """The module of each layer that first reads the residual stream behind self-attention, if any does."""
    entered: dict[int, Tensor | None] = {}
    calls: dict[int, list[_Call]] = {index: [] for index in range(len(layers))}
    handles = []

    def enter(index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[index] = _tensor(args, kwargs)

    def call(
        index: int, attends: bool, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        calls[index].append(_Call(module, attends, _tensor(args, kwargs)))

    def leave(index: int, module: nn.Module, _: object, output: Any) -> None:
        made = next(made for made in reversed(calls[index]) if made.module is module)
        made.returned = output if isinstance(output, Tensor) else output[0]

    for index, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(partial(enter, index), with_kwargs=True))
        for name, child in layer.named_children():
            attends = _is_attention(name, child)
            handles.append(child.register_forward_pre_hook(partial(call, index, attends), with_kwargs=True))
            handles.append(child.register_forward_hook(partial(leave, index)))
    run()
    for handle in handles:
        handle.remove()
    return [_place(calls[index], entered[index]) for index in range(len(layers))]


def _place(calls: Sequence[_Call], entered: Tensor | None) -> nn.Module | None:
    attended = next((number for number, call in enumerate(calls) if call.attends), None)
    if attended is None:
        return None
    behind = calls[attended + 1 :]
    forward = next(
        (
            call
            for call in behind
            if not _is_norm(call.module) and any(True for _ in call.module.parameters())
        ),
        None,
    )
    if forward is None or forward.given is None:
        return None
    norm = next((call for call in calls if _is_norm(call.module) and call.returned is forward.given), None)
    first = norm or forward
    # Side by side with self-attention: it reads what the layer was given.
    return None if first.given is None or first.given is entered else first.module


def _keep_output(outputs: dict[int, Tensor], index: int, _: nn.Module, __: object, output: Any) -> None:
    outputs[index] = output if isinstance(output, Tensor) else output[0]


def _tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else next(iter(kwargs.values()))
    return hidden
