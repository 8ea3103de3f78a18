"""`paellera datastore`: the commands of datastore_build, and `search`, which needs the service's parts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from app.images import decode_image
from app.schemas import NeighbourItem
from datastore_build.cli import build, info, one_line_errors, open_embedder
from datastore_build.cli_changes import add, compact, delete, merge
from datastore_build.cli_options import BundleOption, JsonOption, language_tag
from datastore_build.duplicates_command import duplicates
from datastore_build.map_command import draw_map
from datastore_build.version_commands import activate, gc, rollback, verify
from retrieval.datastore import Datastore
from retrieval.errors import DatastoreError, InvalidImageError

if TYPE_CHECKING:
    from models.captioner import Captioner

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
    text: Annotated[str | None, typer.Option("--text", help="What to look for.", show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="A photo to look for.", show_default=False)
    ] = None,
    language: Annotated[
        str, typer.Option("--language", callback=language_tag, help="Show the texts in this language.")
    ] = "en",
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many neighbours.")] = 5,
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
            store, query = _image_query(datastore, image, bundle)
        elif text is not None and text.strip() and image is None:
            store, query = _text_query(datastore, text, bundle)
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


def open_captioner(bundle: Path | None, datastore: Path) -> "Captioner":
    """The captioner of a bundle, of the default one if None, on that datastore."""
    # Here, because it imports torch, which takes seconds: `info` and `--help` must not wait for it.
    from models.bundle import Bundle, default_bundle

    return Bundle.open(bundle or default_bundle()).load_captioner(datastore)


def _text_query(datastore: Path, text: str, bundle: Path | None) -> tuple[Datastore, npt.NDArray[np.float32]]:
    embedder = open_embedder(bundle)
    store = Datastore.open(datastore, embedder_id=embedder.id, dimension=embedder.dimension)
    return store, embedder.embed_texts([text])


def _image_query(
    datastore: Path, image: Path, bundle: Path | None
) -> tuple[Datastore, npt.NDArray[np.float32]]:
    try:
        data = image.read_bytes()
    except OSError as error:
        raise InvalidImageError(f"cannot read {image}: {error.strerror}") from None
    decoded = decode_image(data)
    captioner = open_captioner(bundle, datastore)
    if captioner.datastore is None:
        raise DatastoreError(f"{datastore} was not opened")
    return captioner.datastore, captioner.embed_images([decoded.image])
