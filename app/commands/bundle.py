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
    from retrieval.manifest import live_version, read_manifest, verify_files

    opened = _open(bundle)  # opening verifies
    version = live_version(opened.path / DATASTORE)
    verify_files(version, read_manifest(version))
    typer.echo(f"{opened.path}: complete and unchanged")


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
