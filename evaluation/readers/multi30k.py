"""Multi30k (Elliott et al., VL 2016): a list of photos, and for each language its captions line by line."""

import re
from pathlib import Path

from evaluation.json_lines import read_lines
from evaluation.readers.dataset import Dataset, DatasetBuilder
from retrieval.errors import InvalidRequestError


def read_multi30k(captions: Path, images: Path, split: str, limit: int | None = None) -> Dataset:
    """Files anywhere under the folder `captions`, for the split `test_2016_flickr` for example:

    the list `test_2016_flickr.txt` (or `…_images.txt`), and `test_2016_flickr.de` or, with several captions a
    photo, `test_2016_flickr.1.de` to `.5.de`; `.gz` is read too.

    Raises:
        InvalidRequestError: there is no such list or no captions, or a file has another number of lines.
    """
    files = sorted(path for path in captions.rglob(f"{split}*") if path.is_file())
    lists = [path for path in files if path.name in (f"{split}.txt", f"{split}_images.txt")]
    pattern = re.compile(rf"{re.escape(split)}(?:\.\d+)?\.([a-z]{{2,3}})(?:\.gz)?")
    texts = [
        (path, found[1]) for path in files if (found := pattern.fullmatch(path.name)) and found[1] != "txt"
    ]
    if not lists or not texts:
        wanted = f"{split}.txt" if not lists else f"{split}.en or {split}.1.en"
        raise InvalidRequestError(f"{captions} has no file {wanted} in it, which Multi30k would have")
    names = [line.split("#")[0].strip() for _, line in read_lines(lists[0])]
    builder = DatasetBuilder()
    for path, language in texts:
        rows = list(read_lines(path))
        if len(rows) != len(names):
            raise InvalidRequestError(
                f"{path} has {len(rows)} lines, and {lists[0]} names {len(names)} photos"
            )
        for name, (number, text) in zip(names, rows, strict=True):
            builder.add(f"{path.name}:{number}", name, images / name, language, text)
    return builder.finish(captions, limit)
