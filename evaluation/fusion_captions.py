"""Captions for photos whose features and neighbours are known: what the captioner does once it has looked.

`models.captioner` encodes a photo and retrieves for it first. In a comparison both are the same for all
systems and done beforehand; words of the neighbours are not mixed in, as for photos like those of training.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch

from models.generation import GenerationSettings, generate
from training.bridge import BridgeMaterial

_ROWS_AT_ONCE = 64  # captions generated together

Captions = dict[str, dict[str, str]]  # language → photo → caption


class FeatureCaptioner:
    """The frozen parts, ready to caption through one bridge after another.

    Args:
        neighbours: how many captions stand in a prompt with retrieval.
        dtype: of language model and bridges.
    """

    def __init__(self, material: BridgeMaterial, *, neighbours: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._material = material
        self._neighbours = neighbours
        self._model = deepcopy(material.language_model).eval().to(dtype)  # training goes on in float32

    def prompt(self, photo: str, language: str, *, retrieval: bool) -> list[int]:
        """Token ids of a prompt: bare, or with the first caption of each photo found for this one."""
        captions = self._material.neighbours.ids.get(language, {})
        found = [captions[other][0] for other in self._material.retrieved[photo] if other in captions]
        return self._material.prompts.build_from_ids(language, found[: self._neighbours] if retrieval else [])

    @torch.inference_mode()
    def caption(
        self,
        bridge: Any,
        photos: Sequence[str],
        languages: Sequence[str],
        *,
        retrieval: bool,
        beams: int,
    ) -> Captions:
        """Caption every photo in every language.

        Args:
            bridge: in evaluation mode and of this captioner's dtype; None for the language model alone.
        """
        settings = GenerationSettings(
            beams=beams, no_repeat_ngram=2, never=self._material.prompts.tokenizer.special.never
        )
        captions: Captions = {language: {} for language in languages}
        for batch in _batches(photos, max(1, _ROWS_AT_ONCE // len(languages))):
            rows = torch.arange(len(batch)).repeat_interleave(len(languages))
            state = None
            if bridge is not None:
                memory = self._material.features.tokens(batch).to(self.dtype)  # (B, N, Dv)
                state = bridge.prepare(memory).select(rows)
            asked = [(photo, language) for photo in batch for language in languages]
            written = generate(
                self._model,
                [self.prompt(photo, language, retrieval=retrieval) for photo, language in asked],
                settings,
                bridge=bridge,
                bridge_state=state,
            )
            for (photo, language), hypotheses in zip(asked, written, strict=True):
                captions[language][photo] = self._material.prompts.tokenizer.decode(hypotheses[0].ids)
        return captions


def _batches(photos: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (photos[start : start + size] for start in range(0, len(photos), size))
