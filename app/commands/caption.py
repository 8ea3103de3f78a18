"""`paellera caption`: options in, captions on the screen or one JSON document out.

The work is app/commands/photo_files.py's and the looks are app/commands/render.py's.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.options import BundleOption, DatastoreOption, JsonOption

if TYPE_CHECKING:
    from app.model import CaptionModel


def caption(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO", help="Image files; - reads one from standard input.", show_default=False
        ),
    ],
    languages: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            "-l",
            metavar="LANGUAGE",
            help="Language of the captions, as a tag (pt-BR) or a name (Portuguese); may be repeated; `all` "
            "for every language of the bundle. Default: that of your locale.",
        ),
    ] = None,
    num_captions: Annotated[
        int,
        typer.Option(
            "--num-captions", "-n", metavar="N", min=1, max=8, help="Captions per photo and language."
        ),
    ] = 1,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", min=1, max=64, help="Length limit of a caption."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            metavar="N",
            min=1,
            max=1000,
            help="Characters a caption may have; a longer one is cut where it makes sense.",
        ),
    ] = None,
    neighbours: Annotated[
        int | None,
        typer.Option(
            "--neighbours", "-k", metavar="K", min=0, max=8, help="Retrieved captions shown to the model."
        ),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option("--beams", metavar="N", min=1, max=8, help="Width of the beam search; 1 is greedy."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", metavar="T", min=0.01, max=2.0, help="Sample instead of searching."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", min=0.01, max=1.0, help="With --temperature: nucleus sampling."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**32 - 1, help="With --temperature: the same captions again."
        ),
    ] = 0,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank", help="Of all captions found, prefer those of most confidence to the likeliest words."
        ),
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            metavar="FILE",
            help="Draw where in the photo each word comes from, into a .png or .jpg file; for one photo.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    datastore: DatastoreOption = None,
) -> None:
    """Caption photos.

    A photo that cannot be read is reported and the others go on; the exit code is 1 then.

    \b
    Examples:
      paellera caption cat.jpg
      paellera caption cat.jpg dog.jpg --language es --language ar
      paellera caption cat.jpg --language all --json
      paellera caption cat.jpg --temperature 0.8 --num-captions 5 --seed 7
      paellera caption cat.jpg --language ar --explain words.png
      curl -s https://example.org/cat.jpg | paellera caption -
    """
    # Not at the top: these bring Pillow, pydantic and numpy along, and --help must not wait for them.
    from app import model as models
    from app.commands.explain_picture import check_destination, explanation_picture, write_picture
    from app.commands.photo_files import PhotoRun
    from app.commands.render import print_image, print_json, printable
    from app.reply import describe_datastore, describe_model, describe_timings, new_id
    from app.schemas import FailedImage, SourcedImage, SourcedReply
    from app.settings import load_settings
    from app.validation import validate_parameters

    if explain is not None:
        check_destination(explain, photos)
    settings = load_settings({"bundle": bundle, "datastore": datastore})
    parameters = validate_parameters(
        {
            "languages": tuple(languages or ()),
            "num_captions": num_captions,
            "max_tokens": max_tokens,
            "max_length": max_length,
            "neighbours": neighbours,
            "beams": beams,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "rerank": rerank,
            "explain": explain is not None,
        }
    )

    def load() -> "CaptionModel":
        with _status("loading the model"):
            return models.load_model(
                settings.bundle, settings.datastore, settings.precision, settings.index_device
            )

    run = PhotoRun(load, parameters, settings)
    images = []
    for image in run.images(photos):
        images.append(image)
        if isinstance(image, FailedImage):
            print(f"error: {printable(image.source)}: {image.error.detail}", file=sys.stderr)
        elif not as_json:
            print_image(image)
    if explain is not None and isinstance(images[0], SourcedImage):
        drawn, warnings = explanation_picture(run.pictures[0], images[0].captions)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        write_picture(drawn, explain)
    if as_json:
        reply = SourcedReply(
            id=new_id(),
            model=describe_model(run.model),
            datastore=describe_datastore(run.model),
            images=images,
            timings_ms=describe_timings(run.timings_ms),
        )
        print_json(reply.model_dump(mode="json"))
    if any(isinstance(image, FailedImage) for image in images):
        raise typer.Exit(1)


@contextmanager
def _status(message: str) -> Iterator[None]:
    """A spinner on standard error, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{message} …"):
        yield
