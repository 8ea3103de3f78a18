"""What prompts and captions need of a tokenizer, whichever it is."""

from collections.abc import Sequence
from typing import Protocol

from models.language.special_tokens import SpecialTokens


class Vocabulary(Protocol):
    """Text ⇄ token ids."""

    @property
    def special(self) -> SpecialTokens: ...

    def __len__(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens; runs of white space count as one space."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special tokens."""
        ...

    def piece(self, token: int) -> str:
        """A token as text; `▁` stands for the space before a word."""
        ...

    def pieces(self) -> list[str]:
        """All tokens as `piece` gives them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a generated sequence; special tokens are dropped."""
        ...
