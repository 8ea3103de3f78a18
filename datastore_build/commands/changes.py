"""`paellera datastore add`, `delete`, `compact` and `merge`: options in, a report out.

Each makes a new version and makes it live; the one before stays as it is.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from datastore_build.build import add_to_datastore
from datastore_build.build_state import QualityFilters
from datastore_build.cli import datastore_app, one_line_errors, open_embedder, photo_match
from datastore_build.commands.options import (
    BundleOption,
    CheckLanguageOption,
    DatastoreArgument,
    EngineOption,
    ImagesOption,
    IndexOption,
    JsonOption,
    LanguageOption,
    MaxCharactersOption,
    MaxWordsOption,
    MemoryBudgetOption,
    MinCharactersOption,
    MinMatchOption,
    MinWordsOption,
    NearDuplicatesOption,
    RayAddressOption,
    ResumeOption,
    StrictOption,
    TargetMsOption,
    TargetRecallOption,
    WorkersOption,
    index_request,
)
from datastore_build.commands.report import print_report, progress_bar
from datastore_build.deletion import delete_entries
from datastore_build.engines.choice import open_engine
from datastore_build.merging import ChangeReport, compact_datastore, merge_datastores
from datastore_build.sources.readers import SUPPORTED, open_sources
from retrieval.errors import DatastoreError
from retrieval.manifest import IndexRequest, live_version, read_manifest


@datastore_app.command()
def add(
    datastore: DatastoreArgument,
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help=f"Files of captions: {SUPPORTED}.", show_default=False),
    ],
    bundle: BundleOption = None,
    index: IndexOption = None,
    memory_budget: MemoryBudgetOption = None,
    target_ms: TargetMsOption = None,
    target_recall: TargetRecallOption = None,
    strict: StrictOption = False,
    language: LanguageOption = "en",
    near_duplicates: NearDuplicatesOption = "report",
    min_words: MinWordsOption = None,
    max_words: MaxWordsOption = None,
    min_characters: MinCharactersOption = None,
    max_characters: MaxCharactersOption = None,
    check_language: CheckLanguageOption = False,
    min_match: MinMatchOption = None,
    images: ImagesOption = None,
    resume: ResumeOption = False,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add captions; only these are embedded.

    A row with an id that the datastore has already is rejected. What was deleted is not taken over.

    \b
    Examples:
      paellera datastore add my-datastore new.jsonl
      paellera datastore add my-datastore more.csv.gz --near-duplicates drop --json
    """
    with one_line_errors():
        open_sources(sources)  # misspelt names are told before the embedder is loaded
        asked = _asked(datastore)
        embedder = open_embedder(bundle)
        with open_engine(engine, ray_address, workers) as opened, progress_bar() as on_progress:
            report = add_to_datastore(
                sources,
                datastore,
                embedder,
                language=language,
                index=index_request(asked, index, memory_budget, target_ms, target_recall),
                strict=strict,
                filters=QualityFilters(
                    min_words=min_words,
                    max_words=max_words,
                    min_characters=min_characters,
                    max_characters=max_characters,
                    check_language=check_language,
                    min_match=min_match,
                ),
                near_duplicates=near_duplicates,
                match=None if min_match is None else photo_match(bundle, images),
                resume=resume,
                engine=opened,
                on_progress=on_progress,
            )
    print_report(report, as_json=as_json)


@datastore_app.command()
def delete(
    datastore: DatastoreArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of entries.", show_default=False)
    ] = None,
    ids_from: Annotated[
        Path | None,
        typer.Option("--ids-from", metavar="FILE", help="A file with one id a line.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete entries: no search finds them from now on.

    Nothing is copied: the new version shares the files of the one before and names what is deleted. The
    entries leave the files with `compact`.

    \b
    Examples:
      paellera datastore delete my-datastore beach-1 beach-2
      paellera datastore delete my-datastore --ids-from unwanted.txt --json
    """
    if not ids and ids_from is None:
        raise typer.BadParameter("give ids or --ids-from", param_hint="ID / --ids-from")
    with one_line_errors():
        report = delete_entries(datastore, [*(ids or []), *(_read_ids(ids_from) if ids_from else [])])
    if report.missing_count:
        named = ", ".join(report.missing)
        typer.echo(f"{report.missing_count:,} ids are not in the datastore: {named}", err=True)
    _print_change(report, f"{report.deleted:,} entries deleted", as_json=as_json)


@datastore_app.command()
def compact(
    datastore: DatastoreArgument,
    index: IndexOption = None,
    memory_budget: MemoryBudgetOption = None,
    target_ms: TargetMsOption = None,
    target_recall: TargetRecallOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take deleted entries out, or change the index.

    Nothing is embedded again.

    \b
    Examples:
      paellera datastore compact my-datastore
      paellera datastore compact my-datastore --index auto --memory-budget 500M
      paellera datastore compact /shared/my-datastore --index ivf-pq --engine ray
    """
    with one_line_errors():
        asked = index_request(_asked(datastore), index, memory_budget, target_ms, target_recall)
        with open_engine(engine, ray_address, workers) as opened, progress_bar() as on_progress:
            report = compact_datastore(datastore, on_progress, index=asked, engine=opened)
    _print_change(report, f"{report.deleted:,} deleted entries removed", as_json=as_json)


@datastore_app.command()
def merge(
    datastores: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="Folders of datastores.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The merged datastore.", show_default=False),
    ],
    index: IndexOption = None,
    memory_budget: MemoryBudgetOption = None,
    target_ms: TargetMsOption = None,
    target_recall: TargetRecallOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one datastore of several.

    They must be of one embedder; nothing is embedded again. Of entries with the same id the first is taken;
    the others are counted and named in rejects.jsonl.

    \b
    Examples:
      paellera datastore merge part-1 part-2 part-3 --output whole
    """
    with one_line_errors():
        asked = index_request(_asked(datastores[0]), index, memory_budget, target_ms, target_recall)
        with open_engine(engine, ray_address, workers) as opened, progress_bar() as on_progress:
            report = merge_datastores(datastores, output, on_progress, index=asked, engine=opened)
    if report.collision_count:
        named = ", ".join(report.collisions)
        typer.echo(
            f"{report.collision_count:,} entries left out: an earlier datastore has their id: {named}",
            err=True,
        )
    _print_change(report, f"{len(datastores)} datastores merged", as_json=as_json)


def _asked(datastore: Path) -> IndexRequest:
    """What was asked of the live version's index. Raises DatastoreError."""
    return read_manifest(live_version(datastore)).index.asked


def _read_ids(path: Path) -> list[str]:
    """Raises DatastoreError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise DatastoreError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatastoreError(f"cannot read {path}: it is not valid UTF-8") from None


def _print_change(report: ChangeReport, what: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    else:
        typer.echo(
            f"{what}: {report.entries:,} entries, {report.texts:,} texts\n"
            f"version {report.version} is live after {report.seconds:.1f} s: {report.path}"
        )
