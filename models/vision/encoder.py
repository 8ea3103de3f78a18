"""What the captioner needs of a frozen image encoder, whichever it is."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from models.vision.features import VisionFeatures


class VisionEncoder(Protocol):
    def encode(self, images: Sequence[Image.Image]) -> VisionFeatures:
        """Decoded photos of any size and mode, prepared as this encoder wants them, in one pass."""
        ...
