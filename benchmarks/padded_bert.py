"""The sentence encoder as most programs run it: transformers' BertModel on padded batches of 32 texts.

With the weights of our encoder, so that nothing but the way of computing differs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.embedder import TEXT_PREFIX

_BATCH = 32  # texts, sentence-transformers' default


class PaddedBert:
    """transformers' BertModel with the weights of our encoder."""

    def __init__(self, encoder: E5Encoder, dtype: torch.dtype) -> None:
        from transformers import BertConfig, BertModel

        config = encoder.config
        self._encoder = encoder
        self._bert: Any = BertModel(
            BertConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_positions,
                layer_norm_eps=config.layer_norm_eps,
            ),
            add_pooling_layer=False,
        )
        self._load(encoder)
        self._bert = self._bert.to(dtype).eval()

    def _load(self, encoder: E5Encoder) -> None:
        size = encoder.config.hidden_size
        scale = (size / encoder.config.num_heads) ** 0.5  # ours is in the query weights
        state = self._bert.state_dict()
        with torch.no_grad():
            every = torch.arange(encoder.config.vocabulary_size)
            state["embeddings.word_embeddings.weight"].copy_(encoder.token_embedding(every))
            state["embeddings.position_embeddings.weight"].copy_(encoder.positions)
            state["embeddings.token_type_embeddings.weight"].zero_()
            for kind in ("weight", "bias"):
                state[f"embeddings.LayerNorm.{kind}"].copy_(getattr(encoder.embedding_norm, kind))
                for number, layer in enumerate(encoder.layers):
                    theirs = f"encoder.layer.{number}."
                    query, key, value = getattr(layer.qkv, kind).float().split(size)
                    state[f"{theirs}attention.self.query.{kind}"].copy_(query * scale)
                    state[f"{theirs}attention.self.key.{kind}"].copy_(key)
                    state[f"{theirs}attention.self.value.{kind}"].copy_(value)
                    for name, own in (
                        ("attention.output.dense", layer.attention_output),
                        ("attention.output.LayerNorm", layer.attention_norm),
                        ("intermediate.dense", layer.intermediate),
                        ("output.dense", layer.output),
                        ("output.LayerNorm", layer.output_norm),
                    ):
                        state[f"{theirs}{name}.{kind}"].copy_(getattr(own, kind))

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, H) unit vectors, in the order given."""
        tokenizer = self._encoder.tokenizer
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        vectors = torch.empty(len(texts), self._encoder.config.hidden_size)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            ids = [
                [tokenizer.bos_id, *tokens, tokenizer.eos_id]
                for tokens in tokenizer.encode([TEXT_PREFIX + texts[row] for row in rows])
            ]
            longest = max(map(len, ids))
            padded = torch.tensor([row + [1] * (longest - len(row)) for row in ids])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
            states = self._bert(input_ids=padded, attention_mask=mask).last_hidden_state.float()
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vectors[rows] = F.normalize(means, dim=-1)
        return vectors
