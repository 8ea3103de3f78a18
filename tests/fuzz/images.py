"""Fuzz target: any bytes are a picture within the limits, or an InvalidImageError. Needs the extra `fuzz`.

PYTHONPATH=tests python -m fuzz.images build/fuzz/images -max_total_time=300
"""

import sys

import atheris

with atheris.instrument_imports():
    import pillow_heif  # noqa: F401
    from PIL import Image

    from app import images
    from retrieval.errors import InvalidImageError

LIMITS = images.ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=256)


def decode(data: bytes) -> None:
    """Anything but an InvalidImageError that leaves here is a finding."""
    try:
        decoded = images.decode_image(data, LIMITS)
    except InvalidImageError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 300
        return
    assert isinstance(decoded.image, Image.Image)
    assert decoded.image.mode == "RGB"
    assert max(decoded.image.size) <= LIMITS.max_side
    assert 0 < decoded.width * decoded.height <= LIMITS.max_pixels


if __name__ == "__main__":
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
