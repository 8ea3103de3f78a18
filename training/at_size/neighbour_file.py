"""Retrieved captions by photo, on disk: an Arrow table of photos and, for each, ids of English captions.

Written by `python -m training.at_size.neighbours`, read by the examples of a bridge at size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import InvalidRequestError
from retrieval.files import replacing

NO_CAPTION = -1  # fills up the rows of photos with fewer neighbours; no caption has this id


class Neighbours:
    """Captions retrieved for photos, best first.

    Args:
        image_ids: the photos.
        caption_ids: (photos, keep) int64, NO_CAPTION behind the last.
        made_by: what they were made with, as plain texts.
    """

    def __init__(
        self, image_ids: Sequence[str], caption_ids: NDArray[np.int64], made_by: Mapping[str, str]
    ) -> None:
        self.caption_ids = caption_ids
        self.made_by = dict(made_by)
        self._places = {image_id: place for place, image_id in enumerate(image_ids)}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def image_ids(self) -> list[str]:
        return list(self._places)

    def present(self, image_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the photos are here."""
        return np.array([image_id in self._places for image_id in image_ids], dtype=bool)

    def table(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """Caption ids of photos (B, keep); those that are not here have none."""
        absent = len(self.caption_ids)
        padded = np.vstack([self.caption_ids, np.full((1, self.caption_ids.shape[1]), NO_CAPTION)])
        places = [self._places.get(image_id, absent) for image_id in image_ids]
        rows: NDArray[np.int64] = padded[np.array(places, dtype=np.int64)]
        return rows


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Write the file, whole or not at all."""
    keep = neighbours.caption_ids.shape[1]
    captions = pa.FixedSizeListArray.from_arrays(pa.array(neighbours.caption_ids.ravel()), keep)
    table = pa.table({"image_id": pa.array(neighbours.image_ids, pa.string()), "caption_ids": captions})
    table = table.replace_schema_metadata(neighbours.made_by)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as file:
        file.write_table(table)


def read_neighbours(path: Path) -> Neighbours:
    """Read what `write_neighbours` wrote.

    Raises:
        InvalidRequestError: there is no such file, or it is another or damaged.
    """
    if not path.is_file():
        raise InvalidRequestError(f"no file {path}: make it with `python -m training.at_size.neighbours`")
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        captions = table["caption_ids"].combine_chunks()
        keep = captions.type.list_size
        ids = captions.flatten().to_numpy().reshape(-1, keep)
        made_by = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return Neighbours(table["image_id"].to_pylist(), ids.astype(np.int64), made_by)
    except (OSError, pa.ArrowException, KeyError, AttributeError, ValueError) as error:
        raise InvalidRequestError(
            f"{path} is not a file of neighbours: make it with `python -m training.at_size.neighbours`"
        ) from error
