"""Photos and captions in the space of a model that was trained to compare them: CLIP, SigLIP.

The image side is the captioner's own image encoder; here is the text side, from the same repository. Vectors
are L2-normalised, and captions go into a datastore as they are.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.embedder import Queries
from retrieval.errors import BundleError
from retrieval.hub_library import transformers_library

_TEXTS_AT_ONCE = 128
_CLASSES = {"clip": "CLIPTextModelWithProjection", "siglip": "SiglipTextModel"}


class ImageTextEmbedder:
    """As `retrieval.embedder.Embedder`, for a model of the Hub.

    Args:
        id: names repository and revision; a datastore built with another id is refused.
        dimension: of the vectors.
        folder: where the model is; its text side is loaded at the first caption.
        kind: `model_type` of its configuration.

    Raises:
        BundleError: there is no text side for this kind of model.
    """

    def __init__(self, id: str, dimension: int, folder: Path, kind: str) -> None:
        if kind not in _CLASSES:
            raise BundleError(
                f"{folder} holds a {kind!r}, which compares no texts: take {' or '.join(_CLASSES)}"
            )
        self.id = id
        self.dimension = dimension
        self._folder = folder
        self._kind = kind

    @torch.inference_mode()
    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """L2-normalised vectors (N, E) of captions, in the given order.

        Args:
            progress: called with the captions done so far and their total.

        Raises:
            BundleError: the text side cannot be loaded.
        """
        vectors = [np.empty((0, self.dimension), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            chunk = list(texts[start : start + _TEXTS_AT_ONCE])
            vectors.append(self._normalised(self._embed(chunk)))
            if progress is not None:
                progress(start + len(chunk), len(texts))
        return np.concatenate(vectors)

    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries:
        """Photos, from the image encoder's pooled vectors; none of them counts as unlike the training photos.

        Raises:
            BundleError: the vectors have another dimension.
        """
        return Queries(self._normalised(pooled), np.zeros(len(pooled), dtype=np.float32))

    def _embed(self, texts: list[str]) -> Tensor:
        model, tokenizer = self._text_side
        # SigLIP was trained on texts padded to its full length, without a mask.
        padding = "max_length" if self._kind == "siglip" else True
        length = model.config.max_position_embeddings
        encoded = tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        encoded = encoded.to(model.device)
        if self._kind == "siglip":
            embedded: Tensor = model(input_ids=encoded["input_ids"]).pooler_output
        else:
            embedded = model(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).text_embeds
        return embedded

    @cached_property
    def _text_side(self) -> tuple[Any, Any]:
        library = transformers_library()
        try:
            model, loaded = getattr(library, _CLASSES[self._kind]).from_pretrained(
                self._folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer = library.AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise BundleError(
                f"{self._folder} holds no text encoder: {' '.join(str(error).split())}"
            ) from error
        if missing := sorted(loaded["missing_keys"]):
            raise BundleError(f"{self._folder}: the text encoder's weights lack {', '.join(missing[:3])}")
        model = model.eval().requires_grad_(False).float()
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer

    def _normalised(self, vectors: Tensor) -> NDArray[np.float32]:
        if vectors.shape[1] != self.dimension:
            raise BundleError(
                f"the embedder {self.id} has {self.dimension} dimensions, a vector here {vectors.shape[1]}: "
                "image encoder and embedder must be one model"
            )
        normalised: NDArray[np.float32] = F.normalize(vectors.float().cpu(), dim=-1).numpy()
        return normalised
