"""Prompts: the template of a language around retrieved captions, as token ids.

A prompt is put together from token ids, never by joining and re-reading text, so that a neighbour's
punctuation cannot change where the prompt ends. Paper: PAELLA, section 3.3.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from models.language.special_tokens import NO_TOKEN
from models.language.vocabulary import Vocabulary

MAX_NEIGHBOUR_TOKENS = 33  # as in PAELLA's training


@dataclass(frozen=True)
class Template:
    opening: str  # before the neighbours
    closing: str  # before the caption


def load_templates() -> dict[str, Template]:
    """The templates shipped with the package, by language code."""
    text = resources.files(__package__).joinpath("templates.toml").read_text(encoding="utf-8")
    return {language: Template(**parts) for language, parts in tomllib.loads(text).items()}


class PromptBuilder:
    """Builds prompts for a tokenizer; templates are tokenised once."""

    def __init__(self, tokenizer: Vocabulary, templates: Mapping[str, Template]) -> None:
        self.tokenizer = tokenizer
        self.languages = tuple(sorted(templates))
        self._parts = {
            language: tuple(tokenizer.encode([template.opening, template.closing]))
            for language, template in templates.items()
        }

    def build(self, language: str, neighbours: Sequence[str]) -> list[int]:
        """The prompt's token ids for retrieved captions, best first; no neighbours is allowed."""
        return self.build_from_ids(language, self.tokenizer.encode(neighbours))

    def build_from_ids(self, language: str, neighbours: Sequence[Sequence[int]]) -> list[int]:
        """As `build`, from captions already tokenised."""
        opening, closing = self._parts[language]
        special = self.tokenizer.special
        ids = [*special.start]
        between = [] if special.separator is None else [special.separator]
        if neighbours:
            for part in [opening, *(caption[:MAX_NEIGHBOUR_TOKENS] for caption in neighbours)]:
                ids += [*part, *between]
        return ids + closing

    def continuations(self, prompt: Sequence[int]) -> list[int]:
        """What follows each token of a prompt inside its neighbours: (P,) token ids.

        The end token at the last token of a neighbour, NO_TOKEN at tokens that are no part of one. The token
        before a neighbour's first counts as part of it: its continuation is how a caption begins. Where the
        vocabulary has no separator, it cannot be told what is part of one.
        """
        separator, end = self.tokenizer.special.separator, self.tokenizer.special.end
        if separator is None:
            return [NO_TOKEN] * len(prompt)
        total = prompt.count(separator)
        seen, follows = 0, []
        for token, following in zip(prompt, [*prompt[1:], NO_TOKEN], strict=True):
            seen += token == separator
            inside = 0 < seen < total
            follows.append((end if following == separator else following) if inside else NO_TOKEN)
        return follows
