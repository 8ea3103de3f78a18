"""Opens datastores, one after the other, under limits of memory and time, and prints what came of each.

    python -m hostile.open_datastores FOLDER

A line of JSON for each folder in FOLDER; before it, its name, so that whoever reads knows where it died.
"""

import json
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

from small_datastores import EMBEDDER

from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError

MEMORY = 3 * 2**30  # bytes of address space
SECONDS = 20  # for each


def outcome(folder: Path) -> dict[str, object]:
    try:
        store = Datastore.open(folder, embedder_id=EMBEDDER.id, dimension=EMBEDDER.dimension)
        store.check()
    except DatastoreError as error:
        return {"refused": str(error)}
    texts = [text.text for entry in range(len(store)) for text in store.texts(entry)]
    found = store.neighbours(EMBEDDER.embed_texts(["a photo of thing 3"]), [["en", "de"]], 3)[0]
    return {"opened": [[item.text for item in own] for own in found], "texts": len(texts)}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        _say(folder.name)
        signal.alarm(SECONDS)
        try:
            result = outcome(folder)
        except BaseException as error:
            result = {"broken": f"{type(error).__name__}: {error}"[:500]}
        signal.alarm(0)
        _say(json.dumps(result))
