"""The compact language model's tokenizer: a SentencePiece vocabulary with byte fallback.

Special tokens follow XGLM: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3; a sequence starts with `</s>`. One more
piece stands for the empty line between the parts of a prompt.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from models.language.special_tokens import SpecialTokens
from retrieval.errors import BundleError

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SEPARATOR = "\n\n"


class Tokenizer:
    """Text ⇄ token ids.

    Raises:
        BundleError: the file is not a SentencePiece model with the special tokens above.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{path} is not a SentencePiece model: {error}") from error
        special = (
            self._processor.bos_id(),
            self._processor.pad_id(),
            self._processor.eos_id(),
            self._processor.unk_id(),
        )
        self.separator_id: int = self._processor.piece_to_id(SEPARATOR)
        if special != (BOS, PAD, EOS, UNK) or self.separator_id == UNK:
            raise BundleError(f"{path}: special tokens are {special}, not bos 0, pad 1, eos 2, unk 3")
        self.special = SpecialTokens(
            start=(EOS,), end=EOS, never=(BOS, PAD, UNK, self.separator_id), separator=self.separator_id
        )

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        normalised = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
        ids: list[list[int]] = self._processor.encode(normalised)
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special tokens."""
        return [len(ids) for ids in self.encode(texts)]

    def piece(self, token: int) -> str:
        """A token as it is written in the vocabulary; `▁` stands for the space before a word."""
        piece: str = self._processor.id_to_piece(token)
        return piece

    def pieces(self) -> list[str]:
        """All tokens as `piece` gives them."""
        pieces: list[str] = self._processor.id_to_piece(list(range(len(self))))
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a generated sequence; special tokens are dropped."""
        text: str = self._processor.decode([i for i in ids if i > UNK and i != self.separator_id])
        return text.strip()
