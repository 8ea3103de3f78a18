"""The text sides of CLIP, SigLIP and SigLIP 2, each as its photos were trained with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.hub_loading import load_pretrained, load_tokenizer
from models.text.pooling import text_device

# Model types in `config.json` → classes of transformers.
CLASSES = {
    "clip": "CLIPTextModelWithProjection",
    "siglip": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
}


class ImageTextTower:
    """A `TextTower` (retrieval/image_text.py) from a folder of the Hub's format.

    Args:
        kind: one of `CLASSES`.

    Raises:
        BundleError: it cannot be loaded.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._model: Any = load_pretrained([CLASSES[kind]], folder, "text encoder").float().to(text_device())
        self._tokenizer: Any = load_tokenizer(folder)
        self._kind = kind

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, E) of texts; what is longer than the model reads is cut."""
        length = self._model.config.max_position_embeddings
        if self._kind == "clip":
            encoded = self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(self._model.device)
            embedded: Tensor = self._model(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).text_embeds
            return embedded
        # Both were trained on lower case, padded to full length and without a mask. SigLIP's own tokenizer
        # lowers by itself; that of SigLIP 2's models of fixed size, which is Gemma's, does not.
        encoded = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        pooled: Tensor = self._model(input_ids=encoded["input_ids"].to(self._model.device)).pooler_output
        return pooled
