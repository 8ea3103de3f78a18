"""From whatever sample format, palette or colour space a file uses to plain sRGB, white behind transparency.

Works on Pillow images that are already loaded; knows nothing of files, formats or limits. The order matters
and is the caller's to keep: `to_eight_bit`, then any scaling, then `to_srgb`, which flattens the alpha
channel last.
"""

import io

import numpy as np
from PIL import Image, ImageCms

# What Pillow calls a mode and what an ICC profile calls the same colour space.
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}
_WHITE = (255, 255, 255)


def to_eight_bit(image: Image.Image, white_level: int = 65535) -> Image.Image:
    """Any loaded image as one of the modes L, LA, RGB, RGBA, CMYK or LAB, 8 bits a sample.

    `white_level` is the sample value of white in a 16-bit image (12-bit TIFF files use 4095). Pillow's own
    conversion from 16 bits clips everything above 255 to white, so the samples are rescaled here. Formats
    without a defined white (32-bit integers, floats) are stretched from their darkest to their brightest
    sample.
    """
    if image.mode.startswith("I;16"):
        return _from_sixteen_bit(image, white_level)
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64)))
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        return image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        return _with_transparent_colour(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert("RGB")  # RGBX, YCbCr, HSV


def to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """A new RGB image in sRGB from an image that `to_eight_bit` made; transparent pixels become white.

    The embedded profile is applied where it fits the image. One that is damaged, or made for another colour
    space, is ignored: a photo with a bad profile is still a photo.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    rgb = _apply_profile(image, icc_profile)
    if alpha is None:
        return rgb
    flat = Image.new("RGB", rgb.size, _WHITE)
    flat.paste(rgb, mask=alpha)
    return flat


def _from_sixteen_bit(image: Image.Image, white_level: int) -> Image.Image:
    samples = np.asarray(image).astype(np.uint32)  # (H, W); astype also undoes a big-endian file order
    grey = np.minimum((samples * 255 + white_level // 2) // white_level, 255).astype(np.uint8)
    result = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        result.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return result


def _stretch(samples: np.ndarray) -> np.ndarray:
    """float64 (H, W) → uint8 (H, W): darkest finite sample to 0, brightest to 255; NaN and infinity to 0."""
    finite = np.isfinite(samples)
    if not finite.any():
        return np.zeros(samples.shape, dtype=np.uint8)
    low, high = samples[finite].min(), samples[finite].max()
    if high == low:
        return np.full(samples.shape, np.clip(low, 0, 255), dtype=np.uint8)
    # Halved first: the difference of two large floats may not be representable.
    scaled = (samples / 2 - low / 2) / (high / 2 - low / 2) * 255
    return np.where(finite, np.rint(np.where(finite, scaled, 0)), 0).astype(np.uint8)


def _with_transparent_colour(image: Image.Image) -> Image.Image:
    """A PNG may name one transparent colour (tRNS), in 16 bits where Pillow kept the high 8 of a sample."""
    colour = image.info["transparency"]
    values = colour if isinstance(colour, tuple) else (colour,)
    opaque = image.copy()
    opaque.info.pop("transparency")
    bands = 3 if image.mode == "RGB" else 1
    if len(values) != bands or not all(isinstance(value, int) and value >= 0 for value in values):
        return to_eight_bit(opaque)
    high = [value >> 8 for value in values] if max(values) > 255 else list(values)
    eight_bit = opaque.convert("L") if image.mode == "1" else opaque
    if image.mode == "1":
        high = [255 if high[0] else 0]
    samples = np.asarray(eight_bit).reshape(image.height, image.width, bands)  # (H, W, bands)
    mask = np.where((samples == np.array(high)).all(axis=2), 0, 255).astype(np.uint8)
    eight_bit.putalpha(Image.fromarray(mask))
    return eight_bit


def _apply_profile(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """L, RGB, CMYK or LAB → RGB in sRGB."""
    profile: ImageCms.ImageCmsProfile | None = None
    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            space = profile.profile.xcolor_space
        except Exception:  # the profile is the caller's bytes: any failure of the parser means "no profile"
            profile = None
        else:
            if image.mode == "L" and space == "RGB ":  # grey pictures often carry the camera's RGB profile
                image = image.convert("RGB")
            if _PROFILE_SPACES[image.mode] != space:
                profile = None
    if profile is None and image.mode == "LAB":  # Pillow's convert() cannot leave LAB
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if profile is not None:
        try:
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except Exception:  # as above: a profile that parses can still have tables nobody can use
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")
