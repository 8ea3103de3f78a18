"""The tokenizer of a model in the Hub's format, as prompts and captions need it.

Vocabularies differ in what they put in front of a sequence, in whether they know an empty line, and in their
special tokens. All of that is read off the tokenizer itself. Special tokens that are spelt out in a text, a
retrieved caption for instance, are read as plain text, or left out if the vocabulary cannot do that.
"""

from collections.abc import Sequence
from pathlib import Path

from models.hub_loading import load_tokenizer
from models.language.special_tokens import SpecialTokens
from retrieval.errors import BundleError

_SEPARATORS = ("\n\n", "\n")


class HubTokenizer:
    """A fast tokenizer of transformers; a `Vocabulary` (models/language/vocabulary.py).

    Args:
        folder: in the Hub's format.
        vocab_size: tokens that the model has scores for; some of them may belong to no text.
        end: text of the one token that ends a caption; by default the tokenizer's own end of sequence.

    Raises:
        BundleError: transformers is missing, there is no fast tokenizer, or it does not fit.
    """

    def __init__(self, folder: Path, vocab_size: int, end: str | None = None) -> None:
        tokenizer = load_tokenizer(folder)
        if not tokenizer.is_fast:
            raise BundleError(f"{folder}: the tokenizer is not a fast one (tokenizer.json)")
        self._tokenizer = tokenizer
        self._size = vocab_size
        if len(tokenizer) > vocab_size:
            raise BundleError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, the language model {vocab_size}"
            )
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        special |= set(tokenizer.all_special_ids)
        separator = self._find_separator()
        ending = self._find_end(end, folder)
        nameless = set(range(vocab_size)) - set(tokenizer.get_vocab().values())
        never = (special | nameless | ({separator} - {None})) - {ending}
        self.special = SpecialTokens(
            start=self._find_start(),
            end=ending,
            never=tuple(sorted(token for token in never if token is not None)),
            separator=separator,
        )
        self._unseen = special | {separator}
        self._unwritten = special - ({tokenizer.unk_token_id} - {tokenizer.eos_token_id})

    def __len__(self) -> int:
        return self._size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        if not texts:
            return []
        encoded = self._encode([" ".join(text.split()) for text in texts])
        return [[token for token in ids if token not in self._unwritten] for ids in encoded]

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special tokens."""
        return [len(ids) for ids in self.encode(texts)]

    def piece(self, token: int) -> str:
        """A token as text; `▁` stands for the space before a word."""
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return _piece(text, self._tokenizer.convert_ids_to_tokens(token))

    def pieces(self) -> list[str]:
        """All tokens as `piece` gives them; for a quarter of a million of them it takes part of a second."""
        library, tokens = self._tokenizer.backend_tokenizer, range(self._size)
        texts = library.decode_batch([[token] for token in tokens], skip_special_tokens=False)
        return [_piece(text, library.id_to_token(token)) for token, text in zip(tokens, texts, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a generated sequence; special tokens are dropped."""
        kept = [token for token in ids if token not in self._unseen]
        text: str = self._tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        return text.strip()

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _find_start(self) -> tuple[int, ...]:
        """What the tokenizer puts in front of a text."""
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self._tokenizer("a")["input_ids"]
        for place in range(len(whole) - len(plain) + 1):
            if whole[place : place + len(plain)] == plain:
                return tuple(whole[:place])
        return ()

    def _find_separator(self) -> int | None:
        for separator in _SEPARATORS:
            (ids,) = self._encode([separator])
            lines = [token for token in ids if "\n" in self._tokenizer.decode([token])]
            if len(lines) == 1 and self._tokenizer.decode(lines) == separator:
                return lines[0]
        return None

    def _find_end(self, end: str | None, folder: Path) -> int:
        if end is None:
            token: int | None = self._tokenizer.eos_token_id
            if token is None:
                raise BundleError(f"{folder}: the tokenizer has no token that ends a sequence")
            return token
        (ids,) = self._encode([f"a{end}"])
        last = ids[-1]
        if self._tokenizer.decode([last]) != end:
            raise BundleError(f"{folder}: {end!r} is no token of this vocabulary")
        return int(last)


def _piece(text: str, written: str | None) -> str:
    """A token whose text and whose form in the vocabulary these are."""
    if not written:  # a row of the model that belongs to no token
        return ""
    return "▁" + text.removeprefix(" ") if written[:1] in "▁Ġ" or text.startswith(" ") else text
