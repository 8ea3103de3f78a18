"""The bridges in checkpoints of PAELLA and SmallCap, as weights of our cross-attention bridge.

Both keep one low-rank cross-attention block per decoder layer, under names of their own:

- PAELLA (XGLM): `….layers.N.encoder_attn.{q,k,v,out}_proj`, `….layers.N.encoder_attn_layer_norm`; queries are
  scaled by the head width before reduction;
- SmallCap (GPT-2): `….h.N.crossattention.{c_attn,q_attn,c_proj}`, `….h.N.ln_cross_attn`, stored as
  (input, output) matrices, keys and values in one; queries are scaled by the head width after reduction.

Ramos et al., Findings of NAACL 2024, and Ramos et al., CVPR 2023. Pickled files are parsed by torch with
`weights_only`, which admits tensors and no code.
"""

import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.fusion.cross_attention import CrossAttentionConfig
from retrieval.errors import BundleError

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder, the first that is there
_PAELLA = re.compile(
    r"(?:^|\.)layers\.(\d+)\.encoder_attn(?:\.(q|k|v|out)_proj|(_layer_norm))\.(weight|bias)$"
)
_SMALLCAP = re.compile(
    r"(?:^|\.)h\.(\d+)\.(?:crossattention\.(c_attn|q_attn|c_proj)|(ln_cross_attn))\.(weight|bias)$"
)
_BUFFERS = re.compile(r"\.crossattention\.(?:bias|masked_bias)$")  # causal masks that GPT-2 used to save

Family = Literal["paella", "smallcap"]
_Blocks = dict[int, dict[str, Tensor]]  # layer → our name of a weight within it → weight


@dataclass(frozen=True)
class PaellaCheckpoint:
    """A bridge that somebody has trained.

    Attributes:
        family: whose names it had.
        weights: of `CrossAttentionBridge`, in float32.
        num_layers, d_model, d_memory, d_inner: its shape; the number of heads does not show in it.
        left_over: how many weights of each part of the checkpoint were not used.
    """

    family: Family
    weights: dict[str, Tensor]
    num_layers: int
    d_model: int
    d_memory: int
    d_inner: int
    left_over: dict[str, int] = field(default_factory=dict)

    def config(self, num_layers: int, d_model: int, num_heads: int) -> CrossAttentionConfig:
        """The bridge's configuration in a language model of that shape.

        Raises:
            BundleError: it was trained for another one.
        """
        for name, own, asked in (
            ("layers", self.num_layers, num_layers),
            ("dimensions", self.d_model, d_model),
        ):
            if own != asked:
                raise BundleError(f"the checkpoint is for {own} {name}, the language model has {asked}")
        reduction, rest = divmod(d_model, self.d_inner)
        if rest:
            raise BundleError(f"the checkpoint's inner width {self.d_inner} is no divisor of {d_model}")
        try:
            return CrossAttentionConfig(
                num_layers=num_layers,
                d_model=d_model,
                d_memory=self.d_memory,
                num_heads=num_heads,
                reduction=reduction,
                query_scaling="unreduced" if self.family == "paella" else "reduced",
            )
        except ValueError as error:
            raise BundleError(f"the checkpoint's shape is impossible: {error}") from error


def read_paella_checkpoint(path: Path) -> PaellaCheckpoint:
    """The bridge in a checkpoint: a file of weights, or a folder that holds one.

    Raises:
        BundleError: it cannot be read, has no such bridge, or the bridge is not whole.
    """
    weights = _read(path)
    blocks: _Blocks = {}
    unused = Counter[str]()
    families = set[Family]()
    for name, weight in weights.items():
        if found := _PAELLA.search(name):
            families.add("paella")
            part = "norm" if found[3] else found[2]
        elif found := _SMALLCAP.search(name):
            families.add("smallcap")
            part = "norm" if found[3] else found[2]
        else:
            if not _BUFFERS.search(name):
                unused[_part_of(name)] += 1
            continue
        blocks.setdefault(int(found[1]), {})[f"{part}.{found[4]}"] = weight.float()
    if len(families) != 1:
        raise BundleError(
            f"{path} has no cross-attention under PAELLA's or SmallCap's names"
            if not families
            else f"{path} has both PAELLA's and SmallCap's names"
        )
    (family,) = families
    if sorted(blocks) != list(range(len(blocks))):
        raise BundleError(f"{path}: the layers with cross-attention are {sorted(blocks)}, not the first ones")
    try:
        unified = [
            _of_paella(blocks[i]) if family == "paella" else _of_smallcap(blocks[i]) for i in sorted(blocks)
        ]
    except KeyError as error:
        raise BundleError(f"{path}: a layer's cross-attention lacks {error.args[0]}") from error
    shapes = {tuple((name, tuple(w.shape)) for name, w in sorted(block.items())) for block in unified}
    if len(shapes) != 1:
        raise BundleError(f"{path}: the layers' cross-attentions have different shapes")
    d_inner, d_model = unified[0]["q.weight"].shape
    ours = {
        "kv_proj.weight": torch.cat([block[f"{kind}.weight"] for block in unified for kind in "kv"]),
        "kv_proj.bias": torch.cat([block[f"{kind}.bias"] for block in unified for kind in "kv"]),
    }
    for index, block in enumerate(unified):
        for kind in ("weight", "bias"):
            ours[f"norms.{index}.{kind}"] = block[f"norm.{kind}"].clone()
            ours[f"q_projs.{index}.{kind}"] = block[f"q.{kind}"].clone()
            ours[f"out_projs.{index}.{kind}"] = block[f"out.{kind}"].clone()
    return PaellaCheckpoint(
        family=family,
        weights=ours,
        num_layers=len(unified),
        d_model=d_model,
        d_memory=unified[0]["k.weight"].shape[1],
        d_inner=d_inner,
        left_over=dict(sorted(unused.items())),
    )


def _of_paella(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{part}.{kind}": block[f"{part}.{kind}"]
        for part in ("norm", "q", "k", "v", "out")
        for kind in _KINDS
    }


def _of_smallcap(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's matrices are (input, output); keys and values are halves of one."""
    key, value = block["c_attn.weight"].t().chunk(2)
    key_bias, value_bias = block["c_attn.bias"].chunk(2)
    return {
        "norm.weight": block["norm.weight"],
        "norm.bias": block["norm.bias"],
        "q.weight": block["q_attn.weight"].t().contiguous(),
        "q.bias": block["q_attn.bias"],
        "k.weight": key.contiguous(),
        "k.bias": key_bias,
        "v.weight": value.contiguous(),
        "v.bias": value_bias,
        "out.weight": block["c_proj.weight"].t().contiguous(),
        "out.bias": block["c_proj.bias"],
    }


_KINDS = ("weight", "bias")


def _part_of(name: str) -> str:
    """Which part of a checkpoint a weight belongs to: its name up to the layer's number."""
    return re.split(r"\.\d+\.", name, maxsplit=1)[0].removesuffix(".weight").removesuffix(".bias")


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        inside = next((path / name for name in _FILES if (path / name).is_file()), None)
        if inside is None:
            raise BundleError(f"{path} has neither {' nor '.join(_FILES)}")
        path = inside
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix not in _PICKLED:
            raise BundleError(f"{path} is no checkpoint: .safetensors or {', '.join(_PICKLED)}")
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{path} cannot be read as weights and nothing else: {reason}") from error
    for name in ("state_dict", "model"):  # how trainers wrap it
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in loaded.items()
    ):
        raise BundleError(f"{path} is not a table of weights by name")
    return loaded
