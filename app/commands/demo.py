"""The demo: real photos that come with scikit-image and scikit-learn, captioned in every language.

    python -m app.commands.demo            (`make demo` installs what that needs)

Shows each photo's captions with what was retrieved for them, and writes the same as a web page.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from app import model as models
from app.commands.demo_page import CaptionedPhoto, demo_page
from app.commands.render import print_image
from app.images import decode_image
from app.model import CaptionModel
from app.reply import describe_image
from app.schemas import SourcedImage
from app.settings import load_settings
from models.captions import CaptionSettings
from retrieval.errors import InvalidRequestError, PaelleraError
from retrieval.files import replacing


@dataclass(frozen=True)
class SamplePhoto:
    """A photo inside an installed package."""

    title: str
    package: str
    file: str  # relative to the package's folder
    credit: str

    @property
    def path(self) -> Path:
        """Raises InvalidRequestError: the package is not installed, or no longer has the photo."""
        spec = importlib.util.find_spec(self.package)  # does not import it, which would take a second
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        path = Path(folders[0], self.file) if folders else None
        if path is None or not path.is_file():
            raise InvalidRequestError(
                f"the sample photo {self.file} comes with the package {self.package}, which is missing "
                "or has it no more: install the demo's packages with `pip install 'paellera[demo]'`"
            )
        return path


SAMPLES = (
    SamplePhoto("cat", "skimage", "data/chelsea.png", "Stefan van der Walt, CC0"),
    SamplePhoto("coffee", "skimage", "data/coffee.png", "Rachel Michetti, CC0"),
    SamplePhoto("rocket", "skimage", "data/rocket.jpg", "SpaceX, public domain"),
    SamplePhoto(
        "motorcycle", "skimage", "data/motorcycle_left.png", "Scharstein et al., Middlebury 2014 stereo data"
    ),
    SamplePhoto("astronaut", "skimage", "data/astronaut.png", "NASA, public domain"),
    SamplePhoto("temple", "sklearn", "datasets/images/china.jpg", "Daniel Buechele, CC BY 2.0"),
    SamplePhoto("flower", "sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0"),
)


def caption_photos(model: CaptionModel, samples: Sequence[SamplePhoto]) -> Iterator[CaptionedPhoto]:
    """Each photo with its captions in every language of the model, English first."""
    languages = tuple(sorted(model.languages, key=lambda code: code != "en"))
    for sample in samples:
        decoded = decode_image(sample.path.read_bytes())
        result = model.caption([decoded.image], CaptionSettings(languages=languages))
        item = SourcedImage(source=sample.title, **dict(describe_image(decoded, result.images[0])))
        yield CaptionedPhoto(item, decoded.image, sample.credit)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 when every photo is captioned and the page written, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m app.commands.demo", description="Caption sample photos.")
    parser.add_argument("--output", type=Path, default=Path("demo/index.html"), help="the web page to write")
    page = parser.parse_args(arguments).output
    messages = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        settings = load_settings()
        for sample in SAMPLES:
            _ = sample.path  # a missing one is told before the model is loaded
        with messages.status("loading the model …"):
            model = models.load_model(
                settings.bundle, settings.datastore, settings.precision, settings.index_device
            )
        started = time.perf_counter()
        photos = []
        for photo in caption_photos(model, SAMPLES):
            print_image(photo.item)
            photos.append(photo)
        seconds = time.perf_counter() - started
        _write(page, demo_page(photos))
    except (PaelleraError, OSError) as error:
        messages.print(f"error: {error}")
        return 1
    messages.print(
        f"{len(photos)} photos captioned in {len(model.languages)} languages in {seconds:.1f} s; "
        f"as a page with the pictures: {page}"
    )
    return 0


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
