"""PIL images to the pixels EfficientNet-Lite reads. Decoding, colour management and orientation are done
before (in the service) and are not known here.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGE_SIZE = 260  # EfficientNet-Lite2's training resolution, in pixels
_MEAN, _STD = 127.0, 128.0  # of byte values, the same for each channel


def preprocess(images: Sequence[Image.Image], size: int = IMAGE_SIZE) -> Tensor:
    """Resize (bicubic) to a square and scale to about [-1, 1].

    The aspect ratio is ignored: the training photos come squashed to a square, and training and serving must
    see photos alike; besides, a crop would hide what stands at the edge.

    Returns:
        (B, 3, size, size) float32 in channels-last memory, (byte - 127) / 128.

    Raises:
        ValueError: `images` is empty.
    """
    if not images:
        raise ValueError("no image to preprocess")
    pixels = np.stack(
        [
            np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)
            for image in images
        ]
    )  # (B, H, W, 3)
    scaled = (torch.from_numpy(pixels).float() - _MEAN) / _STD
    return scaled.permute(0, 3, 1, 2)  # (B, 3, H, W): channels-last by its strides, nothing is copied
