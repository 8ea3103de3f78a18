"""`paellera languages` and `paellera bundle`: what a bundle holds, read without loading a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.options import BundleOption, JsonOption

if TYPE_CHECKING:
    from models.bundle import Bundle

BundleArgument = Annotated[
    Path | None,
    typer.Argument(metavar="BUNDLE", help="The bundle's folder. Default: the built-in one."),
]

bundle_app = typer.Typer(
    name="bundle",
    help="Inspect bundles: the folders that hold a trained model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def languages(
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="All languages that there is a prompt for, and which of them the bundle writes."
        ),
    ] = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
) -> None:
    """List the languages captions can be written in.

    \b
    Examples:
      paellera languages
      paellera languages --all
      paellera languages --json
    """
    from app.commands.render import print_json, print_languages
    from app.reply import describe_languages

    written = _open(bundle).manifest.languages
    if not every:
        items = describe_languages(written)
        if as_json:
            print_json({"languages": [item.model_dump() for item in items]})
        else:
            print_languages(items)
        return
    from models.prompts.builder import load_templates

    items = describe_languages(sorted(load_templates()))
    if as_json:
        print_json(
            {"languages": [{**item.model_dump(), "in_bundle": item.code in written} for item in items]}
        )
    else:
        print_languages(items, written)


@bundle_app.command()
def info(bundle: BundleArgument = None, as_json: JsonOption = False) -> None:
    """Show what is in a bundle: its parts, languages, defaults and licences.

    \b
    Examples:
      paellera bundle info
      paellera bundle info my-bundle --json
    """
    from app.commands.render import print_fields, print_json

    opened = _open(bundle)
    document = opened.manifest.model_dump(mode="json")
    if as_json:
        print_json({"path": str(opened.path), **document})
    else:
        print_fields({"path": str(opened.path), **_flat(document)})


@bundle_app.command()
def verify(bundle: BundleArgument = None) -> None:
    """Check every file of a bundle and its datastore against the hashes in their manifests.

    The exit code is 1 if a file is missing or differs.

    \b
    Examples:
      paellera bundle verify
      paellera bundle verify my-bundle
    """
    from models.bundle import DATASTORE
    from models.hub_files import verified_folder
    from retrieval.manifest import live_version, read_manifest, verify_files

    opened = _open(bundle)  # opening verifies
    for reference in opened.manifest.hub_references:
        verified_folder(reference)
    version = live_version(opened.path / DATASTORE)
    verify_files(version, read_manifest(version))
    typer.echo(f"{opened.path}: complete and unchanged")


@bundle_app.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="paella-564m, paella-1.7b, paella-2.9b, smallcap, or a bundle's folder."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Fetch the models that a bundle takes from the Hub; afterwards it works offline.

    A bundle's folder names its commits and gets exactly those. For a name the current commits are looked up
    and printed; `import-paella` writes them into the bundle that it makes. What is there is not
    fetched twice.

    \b
    Examples:
      paellera bundle pull paella-564m
      paellera bundle pull my-bundle
    """
    from app.commands.render import print_json
    from models.hub_fetch import fetch, find_recipe, pin
    from models.hub_files import verified_folder
    from models.manifest import MANIFEST, read_manifest

    if (Path(name) / MANIFEST).is_file():
        references = list(read_manifest(Path(name)).hub_references)
        for reference in references:
            fetch(reference, _tell)
    else:
        references = [pin(source, _tell) for source in find_recipe(name).values()]
    for reference in references:
        verified_folder(reference)
    rows = [
        {"repo": one.repo, "revision": one.revision, "bytes": sum(file.bytes for file in one.files.values())}
        for one in {one.repo: one for one in references}.values()
    ]
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        typer.echo(f"{row['repo']}@{row['revision']}  {row['bytes']:,} bytes")


@bundle_app.command()
def import_paella(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The weights: a file, or the folder that holds it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="The bundle's folder; its name names the bundle.")
    ],
    language_model: Annotated[
        str | None,
        typer.Option(
            metavar="REPO[@REVISION]",
            help="The language model on the Hub. Default: by the checkpoint's shape, an XGLM or GPT-2.",
        ),
    ] = None,
    vision: Annotated[
        str, typer.Option(metavar="REPO[@REVISION]", help="The image encoder on the Hub.")
    ] = "openai/clip-vit-base-patch32",
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="REPO[@REVISION]",
            help="What reads the datastore's captions, made for this image encoder. Default: its own.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="A language to write, repeatable. Default: all with a prompt; of SmallCap en.",
        ),
    ] = None,
    full_stop: Annotated[
        bool,
        typer.Option(
            "--full-stop/--end-token",
            help="What ends a caption: a full stop, as in released weights, or the tokenizer's end token.",
        ),
    ] = True,
) -> None:
    """Make a bundle of a PAELLA or SmallCap checkpoint and models from the Hub.

    The models are fetched unless they are in the cache. What was not used of the checkpoint is listed. The
    datastore is built afterwards, with the new bundle's own embedder.

    \b
    Examples:
      paellera bundle import-paella paella/model.safetensors --output bundles/paella
      paellera bundle import-paella SmallCap7M --output bundles/smallcap
      paellera bundle import-paella paella/model.safetensors --output bundles/paella \\
        --text-encoder sentence-transformers/clip-ViT-B-32-multilingual-v1
      paellera datastore build coco.json --bundle bundles/paella --output bundles/paella/datastore
    """
    from models.hub_fetch import pin
    from models.hub_import import END, PROMPTS, HubModels, default_language_model
    from models.hub_import import import_paella as write_bundle
    from models.paella_checkpoint import read_paella_checkpoint
    from models.prompts.builder import load_templates
    from retrieval.languages import match

    read = read_paella_checkpoint(checkpoint)
    known = sorted(load_templates())
    by_default = known if read.family == "paella" else ["en"]
    languages = sorted({match(tag, known) for tag in language}) if language else by_default
    models = HubModels(
        vision=pin(vision, _tell),
        language=pin(language_model or default_language_model(read), _tell),
        text=None if text_encoder is None else pin(text_encoder, _tell),
    )
    manifest = write_bundle(
        read,
        models,
        output,
        languages=languages,
        templates={"en": PROMPTS[read.family]} if "en" in languages else {},
        end=END if full_stop else None,
    )
    typer.echo(f"{output}: revision {manifest.revision}, {len(read.weights)} weights of the bridge")
    for part, count in read.left_over.items():
        typer.echo(f"not used: {count} of {part}")


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _open(path: Path | None) -> "Bundle":
    # Not at the top: models.bundle brings torch along, and --help must not wait for it.
    from app.settings import load_settings
    from models.bundle import Bundle, default_bundle

    return Bundle.open(load_settings({"bundle": path}).bundle or default_bundle())


def _flat(document: dict[str, object], prefix: str = "") -> dict[str, str]:
    """Nested members as dotted names; lists of plain values on one line."""
    fields: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            fields[prefix + name] = ", ".join(str(item) for item in value)
        elif value is not None:
            fields[prefix + name] = str(value)
    return fields
