"""Which token ids of a vocabulary mean something of their own."""

from dataclasses import dataclass

NO_TOKEN = -1  # stands in lists of token ids where there is none; no vocabulary has it


@dataclass(frozen=True)
class SpecialTokens:
    """What a prompt begins with, what a caption ends with, and what is in no caption.

    Attributes:
        start: in front of every prompt; models differ in what they were trained with.
        end: of a caption.
        never: not to be generated.
        separator: the one token of an empty line between the parts of a prompt; None if there is none.
    """

    start: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    separator: int | None
