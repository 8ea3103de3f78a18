"""What `full_size.py` compares and found, as a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
import transformers

from benchmarks.full_size_parts import BEAMS, NEIGHBOURS, NEW_TOKENS, SIZES, parameters
from benchmarks.machine import describe_machine
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.language.xglm import XGLM

GB = 1e9
_BATCH = 8
_REDUCTIONS = (1, 2, 4, 8, 16)
_D_MEMORY = 768  # of CLIP ViT-B/32


@dataclass(frozen=True)
class Arrangement:
    """A way to caption, at one size."""

    size: str
    label: str
    dtype: torch.dtype
    peer: bool = False
    batches: tuple[int, ...] = (1, _BATCH)  # photos at once

    @property
    def bytes_needed(self) -> int:
        """About what it takes, activations and libraries among it."""
        with torch.device("meta"):
            weights = parameters(XGLM(SIZES[self.size].language))
        return int(1.1 * weights * self.dtype.itemsize + 1.5 * GB)


def arrangements(size: str) -> list[Arrangement]:
    """What is measured of a size; transformers only beside the smaller ones."""
    half = Arrangement(size, "Paellera, bfloat16", torch.bfloat16)
    full = Arrangement(size, "Paellera, float32", torch.float32)
    peer = Arrangement(size, "transformers, float32", torch.float32, peer=True, batches=(1,))
    return {"tiny": [full, peer], "564M": [half, full, peer]}.get(size, [half])


@dataclass
class Measured:
    """One arrangement's figures, times in seconds a photo."""

    arrangement: Arrangement
    weights: dict[str, int]  # by part
    prompt: int  # tokens
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by photos at once
    cpu_seconds: dict[int, list[float]] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)  # of the first photos
    peak_bytes: int = 0


def bridge_parameters() -> dict[str, dict[int, int]]:
    """Trained weights by language model and r, counted in bridges without memory."""
    shapes = {
        f"XGLM {name}": (size.language.num_layers, size.language.d_model, size.language.num_heads)
        for name, size in SIZES.items()
        if name != "tiny"
    }
    shapes["GPT-2 (SmallCap)"] = (12, 768, 12)
    counted: dict[str, dict[int, int]] = {}
    for name, (layers, d_model, heads) in shapes.items():
        for r in _REDUCTIONS:
            with torch.device("meta"):
                config = CrossAttentionConfig(layers, d_model, _D_MEMORY, heads, reduction=r)
                counted.setdefault(name, {})[r] = parameters(CrossAttentionBridge(config))
    return counted


def report(
    command: str, rounds: int, threads: int, measured: Sequence[Measured], left_out: Sequence[str]
) -> str:
    """The page, in Markdown."""
    prompts = sorted({str(one.prompt) for one in measured})
    facts = [
        f"command: `{command}`",
        f"machine: {describe_machine()}; torch {torch.__version__}, {threads} threads, transformers "
        f"{transformers.__version__}",
        f"drawn weights and photos (640 × 480); {BEAMS} beams, {NEIGHBOURS} retrieved captions in a prompt "
        f"of {' or '.join(prompts) or 'no'} tokens, {NEW_TOKENS} new tokens",
        f"encoding, retrieval, generation; medians; rounds in which the arrangements of a size take turns: "
        f"{rounds}",
        *(f"left out: {reason}" for reason in left_out),
    ]
    sizes = dict.fromkeys(one.arrangement.size for one in measured)
    weights = {one.arrangement.size: one.weights for one in measured}
    blocks = [
        "# PAELLA at full size",
        "\n".join(f"- {fact}" for fact in facts),
        "## Time and memory",
        _table(
            ["XGLM", "arrangement", "photos at once", "s a photo", "from – to", "CPU-s a photo", "peak, GB"],
            2,
            [_row(one, photos) for one in measured for photos in one.arrangement.batches],
        ),
        "The peak is that of the process from its start, Python and libraries among it. On a machine that "
        "does other things as well, CPU time tells more than the clock.",
        *(_against(peer, measured) for peer in measured if peer.arrangement.peer),
        "## Weights",
        _table(
            ["XGLM", "image encoder", "language model", "bridge"],
            1,
            [[size, *(f"{count:,}" for count in weights[size].values())] for size in sizes],
        ),
        "Those of the bridge, the only ones that are trained, by its rank reduction r:",
        _table(
            ["", *(f"r = {r}" for r in _REDUCTIONS)],
            1,
            [[name, *(f"{n:,}" for n in counts.values())] for name, counts in bridge_parameters().items()],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _row(one: Measured, photos: int) -> list[str]:
    seconds = one.seconds[photos]
    return [
        one.arrangement.size,
        one.arrangement.label,
        str(photos),
        f"{median(seconds):.2f}",
        f"{min(seconds):.2f} – {max(seconds):.2f}",
        f"{median(one.cpu_seconds[photos]):.2f}",
        f"{one.peak_bytes / GB:.2f}",
    ]


def _against(peer: Measured, measured: Iterable[Measured]) -> str:
    """How our arrangements compare with transformers', and whether they write the same."""
    lines = ["Beside transformers' `generate`, which takes one photo at a time (ratios of medians):", ""]
    for one in measured:
        if one.arrangement.size != peer.arrangement.size or one is peer:
            continue
        times = [
            f"{median(peer.seconds[1]) / median(one.seconds[photos]):.1f} times as fast "
            f"({median(peer.cpu_seconds[1]) / median(one.cpu_seconds[photos]):.1f} in CPU time) "
            f"{'alone' if photos == 1 else f'in batches of {photos}'}"
            for photos in one.arrangement.batches
        ]
        line = f"- {one.arrangement.label}: {', '.join(times)}"
        if one.arrangement.dtype == peer.arrangement.dtype:  # else rounding makes drawn weights write others
            mine, other = one.captions[0].split(), peer.captions[0].split()
            same = sum(a == b for a, b in zip(mine, other, strict=True))
            line += f"; {same} of {len(other)} tokens are the same"
        lines.append(line)
    return "\n".join(lines)


def _table(names: Sequence[str], left: int, rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first `left` columns are text, the others figures."""
    rule = ["---"] * left + ["---:"] * (len(names) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (names, rule, *rows))
