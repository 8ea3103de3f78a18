"""The examples a bridge at size learns from, as PAELLA's section 3.3 has them: a photo, a prompt with
retrieved captions, and one caption to learn, all in one language.

A language is drawn uniformly, then one of its captions. Its photo's neighbours were retrieved once, in
English (training/at_size/neighbours.py); the prompt shows the best k of them that have a translation into
the drawn language.
"""

import random
from collections.abc import Iterable

import numpy as np

from models.prompts.builder import PromptBuilder
from retrieval.errors import InvalidRequestError
from training.at_size.caption_data import SizedData
from training.at_size.caption_table import CaptionData
from training.at_size.neighbour_file import Neighbours
from training.sequences import Example


class SizedExamples:
    """Draws examples for an `ExampleStream`.

    Args:
        captions: as `read_caption_data` gives them.
        neighbours: as `python -m training.at_size.neighbours` writes them.
        prompts: with the language model's tokenizer.
        data: how long captions may be and how many of them a prompt has.
        photos: those whose visual features there are; by default all.

    Raises:
        InvalidRequestError: there is no prompt for a language, or no caption to learn in it.
    """

    def __init__(
        self,
        captions: CaptionData,
        neighbours: Neighbours,
        prompts: PromptBuilder,
        data: SizedData,
        photos: Iterable[str] | None = None,
    ) -> None:
        self._captions = captions
        self._neighbours = neighbours
        self._prompts = prompts
        self._max_tokens = data.max_caption_tokens
        self._k = data.k
        if missing := [code for code in captions.languages if code not in prompts.languages]:
            raise InvalidRequestError(
                f"there is no prompt for {', '.join(missing)}: leave it out of `languages`"
            )
        known = None if photos is None else frozenset(photos)
        usable = np.array([known is None or photo in known for photo in captions.image_ids], dtype=bool)
        usable &= neighbours.present(captions.image_ids)
        self.left_out = int((~usable).sum())  # photos without features or without neighbours
        self._rows = {}
        for language in captions.languages:
            rows = captions.rows(language)
            self._rows[language] = rows[usable[captions.photos[rows]]]
            if not len(self._rows[language]):
                raise InvalidRequestError(
                    f"no caption in {language} belongs to a photo with features and neighbours: were they "
                    "made of the same Karpathy file?"
                )
        self._retrieved = captions.rows_of(neighbours.table(captions.image_ids))  # (photos, keep)

    def draw(self, rng: random.Random, pool: int = 0) -> Example:
        """One example; depends on the state of `rng` alone."""
        language = rng.choice(self._captions.languages)
        rows = self._rows[language]
        row = int(rows[rng.randrange(len(rows))])
        photo = int(self._captions.photos[row])
        texts = [self._text(language, row)]
        for neighbour in self._retrieved[photo].tolist():
            if len(texts) > self._k:
                break
            if neighbour >= 0 and (text := self._captions.text(language, neighbour)) is not None:
                texts.append(text)
        tokenizer = self._prompts.tokenizer
        learnt, *retrieved = (ids[: self._max_tokens] for ids in tokenizer.encode(texts))
        if learnt and learnt[-1] == tokenizer.special.end:  # weights that end a caption with its full stop
            learnt = learnt[:-1]
        prompt = self._prompts.build_from_ids(language, retrieved)
        return Example(self._captions.image_ids[photo], prompt, [learnt])

    def _text(self, language: str, row: int) -> str:
        text = self._captions.text(language, row)
        assert text is not None  # rows() has none without
        return text
