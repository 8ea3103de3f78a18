"""Which captions retrieval finds for each training photo, once for all runs.

    python -m training.at_size.neighbours --karpathy FILE --features DIR --embedder MODEL --output FILE

As PAELLA's section 3.2 has it: of all English captions of the training photos the 15 nearest to the photo by
CLIP, without those of the photo itself, of which the best 7 are kept. Other languages take the translations
of the same ids. A killed run goes on where it stopped; until it is done, FILE.work holds what it has.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.text.hub import load_hub_text
from retrieval.embedder import QueryEmbedder
from retrieval.errors import InvalidRequestError, PaelleraError
from retrieval.files import replacing
from retrieval.image_text import ImageTextEmbedder
from training.at_size.caption_vectors import SHARD_CAPTIONS, CaptionVectors
from training.at_size.karpathy import TRAIN_SPLITS, read_captioned_photos
from training.at_size.neighbour_file import NO_CAPTION, Neighbours, write_neighbours
from training.at_size.neighbour_search import BLOCK_SHARDS, NOTHING, drop_own, search_captions
from training.at_size.rejects import Rejects
from training.feature_cache import FeatureCache
from training.photo_encoders import hub_encoder_id, model_folder

FOUND, KEPT = 15, 7  # PAELLA's
_PHOTOS_AT_ONCE = 4096


@dataclass(frozen=True)
class EnglishCaptions:
    """The captions that are searched, and whose photo each shows."""

    image_ids: list[str]
    caption_ids: NDArray[np.int64]  # (N,)
    owners: NDArray[np.int64]  # (N,) places in image_ids
    texts: list[str]

    @property
    def digest(self) -> str:
        content = json.dumps([self.image_ids, self.caption_ids.tolist(), self.owners.tolist(), self.texts])
        return hashlib.sha256(content.encode()).hexdigest()


def read_english_captions(karpathy: Path, rejects: Rejects) -> EnglishCaptions:
    """Those of the training photos.

    Raises:
        InvalidRequestError: the file cannot be read, or has none.
    """
    image_ids, caption_ids, owners, texts = list[str](), list[int](), list[int](), list[str]()
    for photo in read_captioned_photos(karpathy, rejects):
        if photo.split in TRAIN_SPLITS and photo.captions:
            for caption_id, text in photo.captions:
                caption_ids.append(caption_id)
                owners.append(len(image_ids))
                texts.append(" ".join(text.split()))
            image_ids.append(photo.image_id)
    if not texts:
        raise InvalidRequestError(f"{karpathy} has no caption in the splits {' and '.join(TRAIN_SPLITS)}")
    return EnglishCaptions(image_ids, np.array(caption_ids), np.array(owners), texts)


def find_neighbours(
    captions: EnglishCaptions,
    features: FeatureCache,
    embedder: QueryEmbedder,
    output: Path,
    *,
    found: int = FOUND,
    keep: int = KEPT,
    shard_captions: int = SHARD_CAPTIONS,
    block_shards: int = BLOCK_SHARDS,
    console: Console | None = None,
) -> Neighbours:
    """Retrieve for every photo and write the file.

    Args:
        features: of the same model as `embedder`; their pooled vectors are what it compares with texts.
        found: captions retrieved for a photo, those of the photo itself among them.
        keep: of the others.
        shard_captions: how many are embedded before they are written down.
        block_shards: how many shards are searched before what was found is written down.

    Raises:
        InvalidRequestError: a photo has no features.
        BundleError: the model's texts cannot be embedded, or features and embedder do not fit together.
    """
    made_by = {
        "embedder": embedder.id,
        "features": features.encoder,
        "captions": captions.digest,
        "found": str(found),
        "keep": str(keep),
    }
    photos = _embed_photos(captions.image_ids, features, embedder)
    work = _work_folder(output, {**made_by, "shard": str(shard_captions)})
    vectors = CaptionVectors(work, captions.texts, shard_captions)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task("embedding captions", total=len(captions.texts))
        vectors.embed(embedder, lambda done: progress.update(task, completed=done))
        searched = progress.add_task("searching captions", total=vectors.shards)
        rows = search_captions(
            photos,
            vectors,
            found,
            work / "found.safetensors",
            block_shards=block_shards,
            progress=lambda done: progress.update(searched, completed=done),
        )
    kept = drop_own(rows, captions.owners, np.arange(len(photos)), keep)
    ids = np.where(kept == NOTHING, NO_CAPTION, captions.caption_ids[kept])
    neighbours = Neighbours(captions.image_ids, ids, made_by)
    write_neighbours(output, neighbours)
    shutil.rmtree(work)
    return neighbours


def _embed_photos(
    image_ids: Sequence[str], features: FeatureCache, embedder: QueryEmbedder
) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(image_ids), _PHOTOS_AT_ONCE):
        pooled = features.pooled(image_ids[start : start + _PHOTOS_AT_ONCE])
        parts.append(embedder.embed_pooled(pooled, pooled.new_zeros(len(pooled), 0)).vectors)
    return np.concatenate(parts)


def _work_folder(output: Path, made_by: dict[str, str]) -> Path:
    """Beside the output, emptied if what is in it was begun with other captions, models or numbers."""
    work = output.with_name(f"{output.name}.work")
    note = work / "made_by.json"
    wanted = json.dumps(made_by, sort_keys=True)
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with replacing(note) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
    return work


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when the file is written, 1 when the work failed."""
    parser = argparse.ArgumentParser(
        prog="python -m training.at_size.neighbours", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--karpathy", type=Path, required=True, help="dataset_coco.json")
    parser.add_argument(
        "--features",
        type=Path,
        required=True,
        help="of the same model, by python -m training.features --vision",
    )
    parser.add_argument(
        "--embedder",
        metavar="MODEL",
        required=True,
        help="CLIP or SigLIP in the Hub's format: a folder, owner/model or owner/model@revision",
    )
    parser.add_argument("--revision", help="of the repository, if it is not named with an @")
    parser.add_argument("--output", type=Path, required=True, help="file for the neighbours")
    parser.add_argument("-k", type=int, default=FOUND, help=f"captions retrieved for a photo ({FOUND})")
    parser.add_argument("--keep", type=int, default=KEPT, help=f"of those of other photos ({KEPT})")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        if not 1 <= options.keep <= options.k:
            raise InvalidRequestError("--keep must be from 1 to k")
        folder = model_folder(options.embedder + (f"@{options.revision}" if options.revision else ""))
        encoder_id = hub_encoder_id(folder)
        features = FeatureCache(options.features, encoder_id)
        with Rejects() as rejects:
            captions = read_english_captions(options.karpathy, rejects)
        for line in rejects.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        dimension = features.pooled(captions.image_ids[:1]).shape[1]
        tower = load_hub_text(folder)  # now: what compares no texts is refused before the work begins
        embedder = ImageTextEmbedder(encoder_id, dimension, lambda: tower)
        neighbours = find_neighbours(
            captions, features, embedder, options.output, found=options.k, keep=options.keep, console=console
        )
    except PaelleraError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    counted = int((neighbours.caption_ids != NO_CAPTION).sum(axis=1).min())
    console.print(f"{len(neighbours):,} photos, each with at least {counted} captions", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
