"""`paellera datastore`: the commands of datastore_build, and `search`, which needs the service's parts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from app.images import decode_image
from app.schemas import NeighbourItem
from datastore_build.cli import build, info, one_line_errors, open_embedder
from datastore_build.commands.changes import add, compact, delete, merge
from datastore_build.commands.duplicates import duplicates
from datastore_build.commands.map import draw_map
from datastore_build.commands.options import BundleOption, JsonOption, language_tag
from datastore_build.commands.versions import activate, gc, rollback, verify
from retrieval.datastore import Datastore
from retrieval.errors import InvalidImageError

if TYPE_CHECKING:
    from datastore_build.engines.worker import TextEmbedder
    from models.photo_embedding import PhotoEmbedder

_HELP = """Build, inspect, search and exchange datastores: the captions that are retrieved for an image.

\b
Examples:
  paellera datastore build captions.jsonl --output my-datastore
  paellera datastore info my-datastore
  paellera datastore search my-datastore --text "a dog on a beach"
  paellera caption photo.jpg --datastore my-datastore

docs/datastore.md tells more, docs/scale.md how millions of captions are built on several machines.
"""

datastore_app = typer.Typer(
    name="datastore",
    help=_HELP,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
datastore_app.command()(build)
datastore_app.command()(add)
datastore_app.command()(delete)
datastore_app.command()(compact)
datastore_app.command()(merge)
datastore_app.command()(info)
for command in (duplicates, activate, rollback, gc, verify):
    datastore_app.command()(command)
datastore_app.command("map")(draw_map)


@datastore_app.command()
def search(
    datastore: Annotated[
        Path, typer.Argument(metavar="DIR", help="The datastore's folder.", show_default=False)
    ],
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="What to look for.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="A photo to look for.", show_default=False)
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            "--language", metavar="LANGUAGE", callback=language_tag, help="Show the texts in this language."
        ),
    ] = "en",
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, max=100, help="How many neighbours.")] = 5,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the captions nearest to a text or a photo.

    The best come first. An entry without a text in the language is shown in another one that it has. Texts
    that nearly equal a better one are left out.

    \b
    Examples:
      paellera datastore search my-datastore --text "a dog on a beach"
      paellera datastore search my-datastore --image photo.jpg --language pt -k 3 --json
    """
    with one_line_errors():
        if image is not None and text is None:
            photo = _read_photo(image)
            photo_embedder = open_photo_embedder(bundle)
            store, query = _open(datastore, photo_embedder), photo_embedder.embed_images([photo])
        elif text is not None and text.strip() and image is None:
            embedder = open_embedder(bundle)
            store, query = _open(datastore, embedder), embedder.embed_texts([text])
        else:
            raise typer.BadParameter("give either --text or --image", param_hint="--text / --image")
        neighbours = store.neighbours(query, [[language]], k)[0][0]
    if as_json:
        document = {
            "neighbours": [
                NeighbourItem.model_validate(neighbour, from_attributes=True).model_dump()
                for neighbour in neighbours
            ]
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        for neighbour in neighbours:
            typer.echo(f"{neighbour.score:6.3f}  {neighbour.language:3}  {neighbour.id}  {neighbour.text}")


def open_photo_embedder(bundle: Path | None) -> "PhotoEmbedder":
    """What makes queries of photos in a bundle, in the default one if None."""
    # Here, because it imports torch, which takes seconds: `info` and `--help` must not wait for it.
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_photo_embedder()


def _read_photo(path: Path) -> Image.Image:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidImageError(f"cannot read {path}: {error.strerror}") from None
    return decode_image(data).image


def _open(datastore: Path, embedder: "TextEmbedder | PhotoEmbedder") -> Datastore:
    return Datastore.open(datastore, embedder_id=embedder.id, dimension=embedder.dimension)
