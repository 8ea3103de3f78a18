"""`paellera datastore activate`, `rollback`, `gc` and `verify`: what is done with whole versions."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from datastore_build.cli import one_line_errors
from datastore_build.commands.options import JsonOption
from datastore_build.garbage import Collection, collect_garbage
from datastore_build.verification import Verification, verify_version
from retrieval import activation
from retrieval.errors import DatastoreError
from retrieval.manifest import live_version

DatastoreArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
]


def activate(
    datastore: DatastoreArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Its name.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Make a version live.

    Its files are verified first. A running service takes it up within seconds (docs/operations.md).
    `info --json` lists the versions.

    \b
    Examples:
      paellera datastore activate my-datastore 20261121T233412.962Z-a3dd89ca2127
    """
    with one_line_errors(), _writing(datastore):
        verify_version(datastore, version)
        previous = activation.activate(datastore, version)
    _tell_change(version, previous, as_json)


def rollback(datastore: DatastoreArgument, as_json: JsonOption = False) -> None:
    """Make the version before live again.

    Called again, it goes back further.

    \b
    Examples:
      paellera datastore rollback my-datastore
    """
    with one_line_errors(), _writing(datastore):
        live = live_version(datastore).name
        before = activation.versions_before(datastore, live)
        if before:
            verify_version(datastore, before[0])
        previous, version = activation.rollback(datastore)
    _tell_change(version, previous, as_json)


def gc(
    datastore: DatastoreArgument,
    keep: Annotated[
        int, typer.Option("--keep", metavar="N", min=0, help="Versions kept that were live before.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove versions that are not needed.

    The live version stays, as do the last N before it, those published after it that never were live, and
    those that somebody is just opening. A service that has an older version open keeps working; the disk gets
    its space back when the service lets go of it.

    \b
    Examples:
      paellera datastore gc my-datastore --dry-run
      paellera datastore gc my-datastore --keep 3
    """
    with one_line_errors():
        collection = collect_garbage(datastore, keep=keep, dry_run=dry_run)
    typer.echo(_as_json(collection) if as_json else _describe_collection(collection))


def verify(
    datastore: DatastoreArgument,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Which one. Default: the live one."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also look at every id, text and vector, and search for some.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that a version is undamaged.

    Sizes and SHA-256 of its files, with --deep also what is in them.

    \b
    Examples:
      paellera datastore verify my-datastore
      paellera datastore verify my-datastore --deep --json
    """
    with one_line_errors():
        verification = verify_version(datastore, version, deep=deep)
    typer.echo(_as_json(verification) if as_json else _describe_verification(verification))


@contextmanager
def _writing(datastore: Path) -> Iterator[None]:
    """Raises DatastoreError if the datastore cannot be written."""
    try:
        yield
    except OSError as error:
        raise DatastoreError(
            f"cannot write the datastore {datastore}: {error.strerror or error}. Nothing was changed"
        ) from None


def _tell_change(version: str, previous: str | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"version": version, "previous": previous}, indent=2))
    elif version == previous:
        typer.echo(f"version {version} is live already")
    else:
        typer.echo(f"version {version} is live" + (f", before it {previous} was" if previous else ""))


def _as_json(document: Any) -> str:
    return json.dumps(asdict(document), ensure_ascii=False, indent=2)


def _describe_collection(collection: Collection) -> str:
    lines = [f"{item.version}  {item.bytes:>15,} bytes  {item.state}" for item in collection.versions]
    verb = "would be freed" if collection.dry_run else "freed"
    return "\n".join([*lines, f"{collection.freed:,} bytes {verb}"])


def _describe_verification(verification: Verification) -> str:
    lines = [
        f"version    {verification.version}",
        f"files      {verification.files}, {verification.bytes:,} bytes, sizes and SHA-256 as they should be",
    ]
    if verification.self_search is not None:
        lines += [
            f"texts      {verification.texts:,}, none empty, as many in each language as the manifest says",
            f"vectors    {verification.entries:,}, finite and normalised",
            f"search     {verification.self_search:.1%} of a sample of entries find themselves",
        ]
    return "\n".join(lines)
