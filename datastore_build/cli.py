"""`paellera datastore build` and `info`: options in, a report out.

The work is build.py's. `search` needs images and is in app/.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from datastore_build.build import build_datastore
from datastore_build.index_plan import (
    DEFAULT_TARGET_RECALL,
    IndexChoice,
    IndexRequest,
    parse_bytes,
)
from datastore_build.index_report import describe_index, missed_targets
from datastore_build.publish import version_folders
from datastore_build.readers import SUPPORTED, open_sources
from datastore_build.report import BuildProgress, BuildReport, RejectedRow, RejectedRowsError
from datastore_build.worker import TextEmbedder
from retrieval.errors import PaelleraError, UnknownLanguageError
from retrieval.languages import display_name, normalise
from retrieval.manifest import Manifest, live_version, read_manifest, verify_sizes

datastore_app = typer.Typer(
    name="datastore",
    help="Build and inspect datastores: the captions that are retrieved for an image.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="DIR", help="The bundle whose embedder is used. Default: the built-in one."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def open_embedder(bundle: Path | None) -> TextEmbedder:
    """The embedder of a bundle, of the default one if None."""
    # Here, because it imports torch, which takes seconds: `info` and `--help` must not wait for it.
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_embedder()


def language_tag(value: str) -> str:
    """Option callback: the code of a language tag; anything else is bad usage."""
    try:
        return normalise(value)
    except UnknownLanguageError as error:
        raise typer.BadParameter(str(error)) from None


def memory_size(value: str) -> int:
    """Option parser: a number of bytes with a suffix; anything else is bad usage."""
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@datastore_app.command()
def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help=f"Files of captions: {SUPPORTED}.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The datastore's folder.", show_default=False),
    ],
    bundle: BundleOption = None,
    index: Annotated[
        IndexChoice, typer.Option("--index", help="auto decides by size, memory and time.")
    ] = "auto",
    memory_budget: Annotated[
        int | None,
        typer.Option(
            "--memory-budget",
            metavar="SIZE",
            parser=memory_size,
            help="What the index may take in memory, such as 800M or 2G. auto: 1G.",
            show_default=False,
        ),
    ] = None,
    target_ms: Annotated[
        float | None,
        typer.Option(
            "--target-ms",
            metavar="MS",
            min=0.01,
            help="What a query may take on one core, in milliseconds. auto: 10.",
            show_default=False,
        ),
    ] = None,
    target_recall: Annotated[
        float,
        typer.Option(
            "--target-recall",
            min=0.1,
            max=0.999,
            help="Share of the true neighbours that an approximate index shall find.",
        ),
    ] = DEFAULT_TARGET_RECALL,
    strict: Annotated[
        bool, typer.Option("--strict", help="Publish nothing if any row cannot be used.")
    ] = False,
    language: Annotated[
        str, typer.Option("--language", callback=language_tag, help="Language of the rows that name none.")
    ] = "en",
    as_json: JsonOption = False,
) -> None:
    """Build a datastore from files of captions and make it live.

    A row that cannot be used is counted and kept, with file, line and reason, in rejects.jsonl. The live
    version is replaced at once when the new one is complete, and stays if the build fails.

    \b
    Examples:
      paellera datastore build captions.jsonl --output my-datastore
      paellera datastore build captions_train2017.json more.csv.gz --output my-datastore --strict
      paellera datastore build legendas.tsv --language pt --output my-datastore --json
    """
    with one_line_errors():
        open_sources(sources)  # a misspelt name is told before the embedder is loaded
        embedder = open_embedder(bundle)
        with _progress_bar() as on_progress:
            report = build_datastore(
                sources,
                output,
                embedder,
                language=language,
                index=IndexRequest(index, memory_budget, target_ms, target_recall),
                strict=strict,
                on_progress=on_progress,
            )
    if report.rejected:
        typer.echo(
            f"{report.rejected:,} of {report.rows:,} rows rejected, see {report.rejects_file}", err=True
        )
        _print_rejects(report.rejects, report.rejected)
    if as_json:
        document = asdict(report) | {"index": report.index.model_dump(mode="json", exclude_none=True)}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        typer.echo(_describe_report(report, target_ms))


@datastore_app.command()
def info(
    datastore: Annotated[
        Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is in a datastore.

    \b
    Examples:
      paellera datastore info my-datastore
      paellera datastore info my-datastore --json
    """
    with one_line_errors():
        folder = live_version(datastore)
        manifest = read_manifest(folder)
        verify_sizes(folder, manifest)
    versions = [path.name for path in version_folders(datastore)]
    size = sum(record.bytes for record in manifest.files.values())
    if as_json:
        document = manifest.model_dump(mode="json") | {
            "path": str(folder),
            "bytes": size,
            "versions": versions,
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        typer.echo(_describe_manifest(manifest, size, versions))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An error the user can act on is printed on one line and ends the program with 1."""
    try:
        yield
    except PaelleraError as error:
        if isinstance(error, RejectedRowsError):
            _print_rejects(error.rejects, error.rejected)
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _progress_bar() -> Iterator[Callable[[BuildProgress], None]]:
    """A progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("embedding", total=1.0, counts="")

        def show(state: BuildProgress) -> None:
            rate = state.texts / max(progress.tasks[0].elapsed or 0.0, 1e-9)
            counts = f"{state.texts:,} texts, {rate:,.0f}/s, {state.rejected:,} rejected"
            progress.update(task, completed=state.fraction, counts=counts)

        yield show


def _print_rejects(rejects: tuple[RejectedRow, ...], total: int) -> None:
    for reject in rejects:
        typer.echo(f"  {reject}", err=True)
    if total > len(rejects):
        typer.echo(f"  and {total - len(rejects):,} more", err=True)


def _describe_report(report: BuildReport, target_ms: float | None) -> str:
    repeated = f", {report.repeated_texts:,} of them repeated" if report.repeated_texts else ""
    state = "was there already and is live again" if report.reused else "is live"
    return (
        f"{report.published:,} of {report.rows:,} rows published: "
        f"{report.entries:,} entries, {report.texts:,} texts{repeated} "
        f"({_describe_languages(report.languages)})\n"
        f"index {describe_index(report.index)}\n"
        + "".join(f"note: {miss}\n" for miss in missed_targets(report.index, target_ms))
        + f"version {report.version} {state} after {report.seconds:.1f} s: {report.path}"
    )


def _describe_languages(languages: dict[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in languages.items())


def _describe_manifest(manifest: Manifest, size: int, versions: list[str]) -> str:
    lines = [
        f"version    {manifest.version} ({len(versions)} in the datastore)",
        f"created    {manifest.created} by paellera {manifest.tool_version}, faiss {manifest.faiss_version}",
        f"embedder   {manifest.embedder}, {manifest.dimension} dimensions",
        f"index      {describe_index(manifest.index)}",
        f"entries    {manifest.counts.entries:,}",
        f"texts      {manifest.counts.texts:,} ({manifest.counts.repeated_texts:,} repeated)",
        f"size       {size:,} bytes",
        "sources",
        *(
            f"  {source.name}: {source.published:,} of {source.rows:,} rows, {source.rejected:,} rejected"
            for source in manifest.sources
        ),
        "languages",
        *(
            f"  {code:4} {display_name(code):24} {count:>12,}"
            for code, count in manifest.counts.languages.items()
        ),
    ]
    return "\n".join(lines)
