"""Datastores of a few captions for tests, published one version after the other."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hashing_embedder import HashingEmbedder

from datastore_build.build import build_datastore
from retrieval.manifest import CURRENT, MANIFEST, IndexRequest

EMBEDDER = HashingEmbedder("hashing-32", 32)


def publish(
    datastore: Path,
    rows: Sequence[str | dict[str, Any]],
    embedder: HashingEmbedder = EMBEDDER,
    index: IndexRequest | None = None,
) -> str:
    """Builds a version of texts, or of whole rows, and makes it live; its name."""
    source = datastore.with_name(f"{datastore.name}.jsonl")
    source.write_text(
        "".join(json.dumps({"text": row} if isinstance(row, str) else row) + "\n" for row in rows)
    )
    return build_datastore([source], datastore, embedder, index=index).version


def published_files(datastore: Path) -> dict[str, bytes]:
    """Name and content of each file of the live version but its manifest, which says when it was made."""
    version = datastore / "versions" / (datastore / CURRENT).read_text().strip()
    return {path.name: path.read_bytes() for path in version.iterdir() if path.name != MANIFEST}
