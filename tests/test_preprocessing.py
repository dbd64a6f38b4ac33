"""Preprocessing of photographs equals that of the libraries with which networks are trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import erf
from erf.building import build_network
from erf.errors import InputError
from erf.images import Decoded, Failure, Framing, Image, ImageSet, Sample, read_image
from erf.images.fit import Fit
from erf.models.preprocessing import of_huggingface, of_timm
from erf.storage.schema import provenance_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth colours with noise, in shapes that are wide, high, small, and odd."""
    rng, folder, paths = np.random.default_rng(0), tmp_path_factory.mktemp("photographs"), []
    for number, (height, width) in enumerate([(90, 160), (161, 75), (40, 50), (224, 224)]):
        y, x = np.mgrid[:height, :width]
        waves = np.stack([np.sin(y / (7 + 5 * channel) + x / 11) for channel in range(3)], -1)
        pixels = (127 + 90 * waves + rng.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        Pillow.fromarray(pixels).save(paths[-1])
    return paths


def framed(path: Path, framing: Framing) -> np.ndarray:
    decoded = read_image(path)
    return framing.apply(Image(path.stem, str(path), lambda: decoded), decoded).pixels


def pixels_of(images: ImageSet) -> np.ndarray:
    """Pixels of the first image."""
    found = images.sample(images.images[0])
    assert isinstance(found, Sample)
    return found.pixels


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize(("fit", "resized"), [("squash", (64, 96)), ("crop", 64), ("crop:0.8", 80)])
def test_pixels_equal_those_of_torchvision(
    photographs: list[Path], fit: str, resized: int | tuple[int, int], interpolation: str
) -> None:
    size = (64, 96) if fit == "squash" else (64, 64)
    mode = InterpolationMode(interpolation)
    expected = transforms.Compose(
        [
            transforms.Resize(resized, mode),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    framing = Framing(size, 3, "imagenet", fit, interpolation)
    for path in photographs:
        with Pillow.open(path) as picture:
            np.testing.assert_allclose(framed(path, framing), expected(picture).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224", "tf_efficientnet_b0"])
def test_pixels_equal_those_of_timm(photographs: list[Path], name: str) -> None:
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform
    from timm.models import get_pretrained_cfg

    config = resolve_data_config(pretrained_cfg=getattr(get_pretrained_cfg(name), "to_dict", dict)())
    framing = build_network(f"timm:{name}").framing("auto")
    assert framing.size == tuple(config["input_size"][1:])
    for path in photographs[:3]:
        with Pillow.open(path) as picture:
            expected = create_transform(**config)(picture)
            assert isinstance(expected, torch.Tensor)
        np.testing.assert_allclose(framed(path, framing), expected.numpy(), rtol=0, atol=1e-6)


def test_torchvision_networks_have_the_preprocessing_of_their_weights(photographs: list[Path]) -> None:
    from torchvision.models import get_model_weights

    expected = get_model_weights("shufflenet_v2_x0_5").DEFAULT.transforms()
    framing = build_network("torchvision:shufflenet_v2_x0_5", size=(224, 224)).framing()
    with Pillow.open(photographs[0]) as picture:
        np.testing.assert_allclose(framed(photographs[0], framing), expected(picture).numpy(), rtol=0, atol=1e-6)


def test_networks_for_mammograms_keep_theirs_and_phantoms_are_not_scaled() -> None:
    network = build_network("gmic", size=(64, 48))
    assert network.framing() == Framing((64, 48), 1, "standardise", "pad")
    with pytest.raises(InputError, match="gmic has no configuration"):
        network.framing("auto")
    assert build_network("timm:resnet18").framing(source="phantom").fit == "pad"
    assert build_network("timm:resnet18").framing(fit="squash", source="phantom").fit == "squash"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "0.5,0.5/0.2"}, "for 3 channels; expected one mean"),
        ({"normalisation": "0.5/0"}, "not positive"),
        ({"normalisation": "0.5.5/1"}, "not understood"),
        ({"normalisation": "imagnet"}, "not known; expected one of standardise"),
        ({"fit": "pad:0.5"}, "fit 'pad:0.5' not known"),
        ({"fit": "crop:0"}, "fit 'crop:0' not known"),
        ({"fit": "crop:nan"}, "not known"),
        ({"fit": "stretch"}, "expected one of pad, letterbox, crop, squash"),
        ({"interpolation": "cubic"}, "interpolation 'cubic' not known"),
    ],
)
def test_wrong_preprocessing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Framing((8, 8), 3, **options)


def test_16_bits_are_kept_and_floats_have_to_be_in_the_unit_range() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(1, 64, 64)
    images = erf.from_arrays([ramp.astype(np.uint16)], normalisation="0.5/0.25")
    found = pixels_of(images)
    np.testing.assert_allclose(found, (ramp.astype(np.uint16) / 65535 - 0.5) / 0.25, atol=1e-6)
    unit = erf.from_arrays([ramp.astype(np.float32) / 65535], normalisation="0.5/0.25")
    np.testing.assert_allclose(pixels_of(unit), found, atol=1e-4)
    wide = erf.from_arrays([ramp], normalisation="0.5/0.25")
    failure = wide.sample(wide.images[0])
    assert isinstance(failure, Failure)
    assert "no full scale" in failure.reason
    # Of 16 bits, scaling keeps more than 8.
    decoded = Decoded(ramp.astype(np.uint16), "")
    image = Image("ramp", "ramp", lambda: decoded)
    scaled = Framing((32, 32), 1, "none", "squash").apply(image, decoded).pixels
    assert len(np.unique(scaled)) > 512


def test_files_written_before_there_were_fits_can_be_read(tmp_path: Path) -> None:
    result = erf.compute(torch.nn.Conv2d(1, 1, 3), "phantom", n=2, size=(16, 16), layer="output", progress=False)
    values = {**vars(result.provenance)}
    del values["fit"], values["interpolation"]
    for resample, fit in ((True, "letterbox"), (False, "pad")):
        assert provenance_of(values | {"resample": resample}).fit == fit


def test_photographs_have_no_laterality() -> None:
    dark, colours = np.zeros((3, 20, 20), np.uint8), np.zeros((3, 20, 20), np.uint8)
    dark[:, :, :9], colours[0, :, :9], colours[1, :, :9] = 200, 200, 90
    assert erf.images.laterality_from_tissue(dark) == "left"
    assert not erf.images.laterality_from_tissue(colours)


@pytest.mark.parametrize(("cropped", "resized"), [(224, 236), (224, 242), (224, 256), (288, 288), (380, 384)])
def test_the_side_before_the_crop_is_that_of_the_configuration(cropped: int, resized: int) -> None:
    """Of ConvNeXt and ViT-L of torchvision it was a pixel too small."""
    config = {"image_mean": [0.5], "image_std": [0.5], "size": resized, "crop_size": cropped, "do_center_crop": True}
    fit = Fit.parse(of_huggingface(config).fit)
    assert fit.target((500, 500), (cropped, cropped)) == (resized, resized)


def test_odd_configurations_have_a_preprocessing() -> None:
    config = {"image_mean": [0.5], "image_std": [0.5]}
    odds: list[dict[str, Any]] = [{"resample": [1]}, {"size": -3, "crop_size": 2, "do_center_crop": True}]
    for odd in (*odds, {"image_mean": []}):
        found = of_huggingface(config | odd)
        Framing((8, 8), 1, found.normalisation, found.fit, found.interpolation)
    volo = SimpleNamespace(mean=[0.5], std=[0.5], crop_pct=1.15, crop_mode="center", interpolation="bicubic")
    assert of_timm(volo).fit == "crop"


@pytest.mark.parametrize("text", ["1e400/1", "0.5/1e-60", "1e39/1", "0.5/1e400"])
def test_means_and_deviations_beyond_single_precision_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="single precision"):
        Framing((8, 8), 1, text)
