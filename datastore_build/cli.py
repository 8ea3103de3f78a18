"""`paellera datastore build` and `info`: options in, a report out.

The work is build.py's. `search` needs images and is in app/.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.bar import Bar
from rich.console import Console

from datastore_build.build import build_datastore
from datastore_build.build_state import QualityFilters
from datastore_build.commands.options import (
    BundleOption,
    CheckLanguageOption,
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
from datastore_build.commands.report import print_rejects, print_report, progress_bar
from datastore_build.engines.choice import open_engine
from datastore_build.engines.worker import TextEmbedder
from datastore_build.indexes.report import describe_index
from datastore_build.report import RejectedRowsError
from datastore_build.sources.photo_match import PhotoMatch
from datastore_build.sources.readers import SUPPORTED, open_sources
from retrieval.activation import version_folders
from retrieval.errors import PaelleraError
from retrieval.languages import display_name
from retrieval.manifest import IndexRequest, Manifest, live_version, read_manifest, verify_sizes

_BAR_WIDTH = 32  # characters

datastore_app = typer.Typer(
    name="datastore",
    help="Build and inspect datastores: the captions that are retrieved for an image.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def open_embedder(bundle: Path | None) -> TextEmbedder:
    """The embedder of a bundle, of the default one if None."""
    # Here, because it imports torch, which takes seconds: `info` and `--help` must not wait for it.
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_query_embedder(gpu=True)


def photo_match(bundle: Path | None, images: Path | None) -> PhotoMatch:
    """What judges whether texts fit the photos in a folder; its models are loaded at the first photo."""
    from models.bundle import Bundle, default_bundle

    return PhotoMatch(lambda: Bundle.open(bundle or default_bundle()).load_photo_matcher(), images)


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
    """Build a datastore from files of captions and make it live.

    A row that cannot be used is counted and kept, with file, line and reason, in rejects.jsonl. The live
    version is replaced at once when the new one is complete, and stays if the build fails. What a build that
    was killed had embedded is kept; --resume goes on with it, with either engine.

    \b
    Examples:
      paellera datastore build captions.jsonl --output my-datastore
      paellera datastore build captions_train2017.json more.csv.gz --output my-datastore --strict
      paellera datastore build legendas.tsv --language pt --output my-datastore --json
      paellera datastore build huge.parquet --output my-datastore --resume
      paellera datastore build huge.parquet --output my-datastore --memory-budget 2G --target-ms 2
      paellera datastore build web.jsonl --output my-datastore --near-duplicates drop --min-words 3
      paellera datastore build huge.parquet --output /shared/my-datastore --engine ray --resume
    """
    with one_line_errors():
        open_sources(sources)  # a misspelt name is told before the embedder is loaded
        embedder = open_embedder(bundle)
        with open_engine(engine, ray_address, workers) as opened, progress_bar() as on_progress:
            report = build_datastore(
                sources,
                output,
                embedder,
                language=language,
                index=index_request(IndexRequest(), index, memory_budget, target_ms, target_recall),
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
def info(
    datastore: Annotated[
        Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show the live version: size, index, languages.

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
            print_rejects(error.rejects, error.rejected)
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _describe_manifest(manifest: Manifest, size: int, versions: list[str]) -> str:
    lines = [
        f"version    {manifest.version} ({len(versions)} in the datastore)",
        f"created    {manifest.created} by paellera {manifest.tool_version}, faiss {manifest.faiss_version}",
        f"embedder   {manifest.embedder}, {manifest.dimension} dimensions",
        f"index      {describe_index(manifest.index)}",
        f"entries    {manifest.counts.entries:,}",
        f"texts      {manifest.counts.texts:,} ({manifest.counts.repeated_texts:,} repeated)",
        *(
            [f"deleted    {manifest.deleted.entries:,} more entries, still in the files until `compact`"]
            if manifest.deleted
            else []
        ),
        f"size       {size:,} bytes",
        "sources",
        *(
            f"  {source.name}: {source.published:,} of {source.rows:,} rows, {source.rejected:,} rejected"
            for source in manifest.sources
        ),
        "languages",
        *_language_bars(manifest.counts.languages),
    ]
    return "\n".join(lines)


def _language_bars(languages: dict[str, int]) -> list[str]:
    """A line a language: code, name, count and a bar as long as its share of the largest."""
    most = max(languages.values(), default=0)
    console = Console(width=_BAR_WIDTH, color_system=None, file=io.StringIO())
    lines = []
    for code, count in languages.items():
        with console.capture() as bar:
            console.print(Bar(max(most, 1), 0, count, width=_BAR_WIDTH), end="")
        lines.append(f"  {code:4} {display_name(code):24} {count:>12,}  {bar.get()}".rstrip())
    return lines
