"""Networks of many families, from elsewhere: each ERF is that of a plain autograd loop, or is refused in one line.

The layers and how their outputs are laid out were read from the networks' sources; so was how many tokens precede those
of the image.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import erf
from erf.errors import ErfError, ImageWarning, LayerError
from erf.models import create_model, model_card
from erf.models.sources import input_channels
from erf.theory.layers import default_candidates, list_layers
from erf.theory.tracing import theoretical_receptive_field
from tests.agreement import assert_statistics_agree, plain_gradient

FIRST, LAST = "channels first", "channels last"

# By family: network, layer, and its layout: channels first or last, or (tokens before the map, grid).
CNN = [
    ("timm:resnet18", "layer4", FIRST),
    ("timm:resnext50_32x4d", "layer3", FIRST),
    ("timm:seresnet50", "layer2", FIRST),
    ("timm:resnest14d", "layer4", FIRST),
    ("timm:res2net50_26w_4s", "layer2", FIRST),
    ("timm:skresnet18", "layer4", FIRST),
    ("timm:densenet121", "features", FIRST),
    ("timm:vgg11_bn", "features", FIRST),
    ("timm:inception_v3", "Mixed_6e", FIRST),
    ("timm:efficientnet_b0", "bn2", FIRST),
    ("timm:mobilenetv2_050", "bn2", FIRST),
    ("timm:mobilenetv3_small_050", "blocks", FIRST),
    ("timm:ghostnet_050", "blocks", FIRST),
    ("timm:regnetx_002", "s4", FIRST),
    ("timm:repvgg_a0", "stages", FIRST),
    ("timm:dla34", "level5", FIRST),
    ("timm:hrnet_w18_small", "final_layer", FIRST),
    ("timm:cspresnet50", "stages.2", FIRST),
    ("timm:dpn48b", "features", FIRST),
    ("timm:convnext_atto", "stages", FIRST),
    ("timm:convnextv2_atto", "stages", FIRST),
    ("timm:convmixer_768_32", "blocks.3", FIRST),
    ("timm:inception_next_atto", "stages", FIRST),
    ("timm:starnet_s1", "norm", FIRST),
    ("timm:mobileone_s0", "stages", FIRST),
]
TRANSFORMERS = [
    ("timm:vit_tiny_patch16_224", "blocks.3", (1, (8, 6))),
    ("timm:deit_tiny_distilled_patch16_224", "blocks.3", (2, (10, 6))),
    ("timm:vit_small_patch14_reg4_dinov2", "blocks.1", (5, (10, 10))),
    ("timm:eva02_tiny_patch14_224", "blocks.2", (1, (16, 16))),
    ("timm:cait_xxs24_224", "blocks.2", (0, (8, 6))),
    ("timm:xcit_nano_12_p16_224", "blocks.2", (0, (8, 6))),
    ("timm:crossvit_tiny_240", "blocks.1:1", (1, (14, 14))),
    ("timm:swin_tiny_patch4_window7_224", "layers.1", LAST),
    ("timm:swinv2_cr_tiny_ns_224", "stages.1", FIRST),
    ("timm:pvt_v2_b0", "stages.1.blocks.1", (0, (16, 12))),
    ("timm:twins_pcpvt_small", "blocks.1.0", (0, (16, 12))),
    ("timm:davit_tiny", "stages.1", FIRST),
    ("timm:focalnet_tiny_srf", "layers.1", FIRST),
    ("timm:hiera_tiny_224", "blocks.11", (0, (4, 3))),
]
HYBRIDS = [
    ("timm:coatnet_nano_rw_224", "stages.2", FIRST),
    ("timm:maxvit_tiny_tf_224", "stages.1", FIRST),
    ("timm:levit_128s", "stages.0", (0, (8, 6))),
    ("timm:efficientformer_l1", "stages", (0, (7, 7))),
    ("timm:mobilevit_xxs", "final_conv", FIRST),
    ("timm:edgenext_xx_small", "stages", FIRST),
    ("timm:poolformer_s12", "stages.2", FIRST),
    ("timm:vit_tiny_r_s16_p8_224", "blocks.2", (1, (4, 3))),
    ("timm:tiny_vit_5m_224", "stages", FIRST),
    ("timm:repvit_m0_9", "stages.2", FIRST),
]
MIXERS = [
    ("timm:mixer_s16_224", "blocks.3", (0, (8, 6))),
    ("timm:resmlp_12_224", "blocks.3", (0, (8, 6))),
    ("timm:gmlp_ti16_224", "blocks.3", (0, (8, 6))),
    ("timm:sequencer2d_s", "stages.0", LAST),
    ("timm:mambaout_femto", "stages", LAST),
]
SEGMENTATION = [
    ("torchvision:lraspp_mobilenet_v3_large", "output:out", FIRST),
    ("torchvision:deeplabv3_mobilenet_v3_large", "output:out", FIRST),
    ("torchvision:fcn_resnet50", "output:out", FIRST),
    ("smp:unet:resnet18", "output", FIRST),
    ("smp:fpn:resnet18", "output", FIRST),
    ("smp:deeplabv3plus:resnet18", "output", FIRST),
    ("smp:linknet:resnet18", "decoder", FIRST),
    ("smp:segformer:mit_b0", "output", FIRST),
    ("smp:unet:resnet18", "encoder:3", FIRST),
]
MATRIX = CNN + TRANSFORMERS + HYBRIDS + MIXERS + SEGMENTATION
CANCELLING = {"timm:swinv2_cr_tiny_ns_224": 5}
"""One channel of networks whose layer ends in an untrained norm over channels: what these add up to is constant."""

SIZES = {
    "torchvision:fcn_resnet50": (64, 48),
    "timm:vgg11_bn": (96, 64),
    "timm:convmixer_768_32": (70, 56),
    "timm:sequencer2d_s": (112, 84),
    "timm:eva02_tiny_patch14_224": (224, 224),
    "timm:efficientformer_l1": (224, 224),
    "timm:deit_tiny_distilled_patch16_224": (160, 96),
    "timm:vit_small_patch14_reg4_dinov2": (140, 140),
    "timm:inception_v3": (171, 139),
    "timm:crossvit_tiny_240": (240, 240),
    "timm:mobilevit_xxs": (192, 128),
}

OPTIONS: dict[str, dict[str, Any]] = {"timm:vgg11_bn": {"mlp_ratio": 0.01}}
"""A narrow head: it has most of the parameters, and the layer does not see it."""


def size_of(name: str) -> tuple[int, int]:
    """Small, and not square, where the network takes that."""
    return SIZES.get(name, (128, 96))


def pick(output: Any, keys: list[str]) -> Tensor:
    for key in keys:
        output = output[key if isinstance(output, dict) else int(key)]
    return output


def unit_values(model: nn.Module, inputs: Tensor, layer: str, layout: Any, channel: int | None) -> Tensor:
    """What the central unit sums, among zeros, as the usual loop finds it: by a hook and a tensor of zeros and ones."""
    path, *keys = layer.split(":")
    kept: list[Any] = []
    module = model if path == "output" else model.get_submodule(path)
    handle = module.register_forward_hook(lambda *call: kept.append(call[2]))
    model(inputs)
    handle.remove()
    output = pick(kept[0], keys)
    unit, channels = torch.zeros_like(output), slice(None) if channel is None else channel
    if layout == FIRST:
        unit[:, channels, output.shape[2] // 2, output.shape[3] // 2] = 1
    elif layout == LAST:
        unit[:, output.shape[1] // 2, output.shape[2] // 2, channels] = 1
    else:
        before, (height, width) = layout
        assert output.shape[1] == before + height * width
        unit[:, before + height // 2 * width + width // 2, channels] = 1
    # Not by an index: behind a norm and a transposition the library's gradient of an index is wrong at batch 1.
    return output * unit


CHECKED = [rows[0] for rows in (CNN, TRANSFORMERS, HYBRIDS, MIXERS, SEGMENTATION)]
"""Networks whose run also checks itself; the others compute in the fast way whatever the self-check would say."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "layer", "layout"), MATRIX, ids=[f"{row[0]}-{row[1]}" for row in MATRIX])
def test_the_erf_is_that_of_a_plain_loop(name: str, layer: str, layout: Any) -> None:
    size, channel = size_of(name), CANCELLING.get(name)
    model = create_model(name, size=size, **OPTIONS.get(name, {})).double()
    # The engine's images are in single precision.
    noise = np.random.default_rng(0).standard_normal((input_channels(model), *size)).astype(np.float32)
    found = erf.compute(
        model,
        erf.from_arrays([noise]),
        layer=layer,
        channel="all" if channel is None else channel,
        definitions=("signed", "abs"),
        device="cpu",
        self_check=(name, layer, layout) in CHECKED,
    )
    result = found.provenance.self_check["result"]
    assert result == ("agrees" if (name, layer, layout) in CHECKED else "not checked: not asked for")
    expected = plain_gradient(
        model,
        torch.from_numpy(noise)[None],
        lambda model, inputs: unit_values(model, inputs, layer, layout, channel),
    )
    for definition, of in (("signed", lambda g: g.sum(1)), ("abs", lambda g: np.abs(g).sum(1))):
        assert_statistics_agree(found.statistics("all", definition), expected.map(of), rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "layer"), [("timm:resnet18", "fc"), ("timm:vit_tiny_patch16_224", "output")])
def test_a_class_logit_has_one_unit_for_the_whole_image(name: str, layer: str) -> None:
    model = create_model(name).double()
    noise = np.random.default_rng(0).standard_normal((3, 224, 224))
    found = erf.compute(model, erf.from_arrays([noise]), layer=layer, channel=207, device="cpu")
    inputs = torch.from_numpy(noise.astype(np.float32))[None]
    expected = plain_gradient(model, inputs, lambda model, inputs: model(inputs)[:, 207])
    assert_statistics_agree(found.statistics(), expected.map(lambda g: np.abs(g).sum(1)), rtol=1e-9)
    origin = found.provenance
    assert (origin.unit, origin.unit_center, origin.layout) == ((0, 0), (111.5, 111.5), "a vector")
    assert origin.field_kind == "infinite"


def test_the_matrix_is_as_wide_as_promised() -> None:
    networks = {name for name, *_ in MATRIX}
    assert sum(name.startswith("timm:") for name in networks) >= 40
    assert len({name for name, *_ in SEGMENTATION}) >= 6


REFUSED = [
    ("timm:resnet18", "layer4.7", "unknown layer 'layer4.7'"),
    ("timm:resnet18", "layer1.0.drop_path", "unknown layer"),
    # The pixels of each word lie in the batch, and words are built from an unfolding whose order is lost.
    ("timm:tnt_s_legacy_patch16_224", "blocks.11:0", "is not a map over the input"),
    ("torchvision:lraspp_mobilenet_v3_large", "output", "returns several tensors; choose one of output:out"),
    ("smp:unet:resnet18", "encoder", "returns several tensors"),
    ("torchvision:resnet18", "layer1.0.relu", "called more than once"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "layer", "words"), REFUSED)
def test_what_is_no_map_is_refused_in_one_line(name: str, layer: str, words: str) -> None:
    model = create_model(name)
    images = erf.from_arrays([np.random.default_rng(0).standard_normal((3, 224, 224))])
    with pytest.raises(LayerError, match=words) as caught:
        erf.compute(model, images, layer=layer, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm:resnet18", "layer4"),
        ("timm:convnext_atto", "stages"),
        ("timm:vit_tiny_patch16_224", "blocks"),
        ("timm:swin_tiny_patch4_window7_224", "layers"),
        ("timm:beit_base_patch16_224", "blocks.11"),
        ("torchvision:fcn_resnet50", "output:out"),
        ("smp:unet:resnet18", "output"),
    ],
)
def test_the_layer_that_is_taken_by_default(name: str, layer: str) -> None:
    size = model_card(name).input_size if name.startswith("timm") else (128, 96)
    assert default_candidates(list_layers(create_model(name), (3, *size)))[0].name == layer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "layer", "field"),
    [
        # Table of Araujo, Norris, Sim (Distill 2019); the convolutional parts of torchvision's AlexNet and VGG.
        ("torchvision:alexnet", "features", 195),
        ("torchvision:vgg16", "features", 212),
        ("torchvision:inception_v3", "Mixed_7c", 1311),
        ("torchvision:mobilenet_v2", "features", 491),
    ],
)
def test_published_theoretical_fields(name: str, layer: str, field: int) -> None:
    model = create_model(name)
    found = theoretical_receptive_field(model, layer, (3, 299, 299))
    assert found.size == (field, field)


class TwoViews(nn.Module):
    """Joins two views, with fields of 5 and 9 px before a convolution of 3 units, 2 px apart."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(1, 4, 5, 2, 2), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(1, 4, 9, 2, 4), nn.ReLU())
        self.join = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, cc: Tensor, mlo: Tensor) -> dict[str, Tensor]:
        return {"logits": self.join(torch.cat([self.one(cc), self.two(mlo)], 1))}


def test_a_network_with_two_inputs() -> None:
    torch.manual_seed(0)
    model = TwoViews().double()
    pairs = np.random.default_rng(0).standard_normal((3, 2, 32, 24))
    settings: dict[str, Any] = {"layer": "output:logits", "arguments": erf.Arguments(("cc", "mlo")), "device": "cpu"}
    found = erf.compute(model, erf.from_arrays(list(pairs), ["left", "left", "right"]), **settings)
    expected: dict[str, list[np.ndarray]] = {"cc": [], "mlo": []}
    for pair in torch.from_numpy(pairs.astype(np.float32)).double():
        views = [view[None, None].clone().requires_grad_() for view in pair]
        model(*views)["logits"][0, :, 8, 6].sum().backward()
        for name, view in zip(expected, views, strict=True):
            expected[name].append(view.grad[0].abs().sum(0).numpy())
    assert set(found.subsets) == {"all", "left", "right", "input=cc", "input=mlo"}
    for name, maps in expected.items():
        assert_statistics_agree(found.statistics(f"input={name}"), maps, rtol=1e-11)
    assert_statistics_agree(found.statistics("all"), expected["cc"] + expected["mlo"], rtol=1e-11)
    assert [record.columns["input"] for record in found.images] == ["cc", "mlo"] * 3
    assert found.provenance.inputs == ("cc", "mlo")


def test_a_network_of_volumes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(2, 4, 3, stride=(1, 2, 2), padding=1), nn.Tanh(), nn.Conv3d(4, 3, 3, padding=1)
    ).double()
    volumes = np.random.default_rng(0).standard_normal((2, 2, 6, 20, 16))
    images = erf.from_arrays([volume.reshape(12, 20, 16) for volume in volumes])
    arguments = erf.Arguments(depth=6)
    for unit, expected_unit in (("center", (3, 5, 4)), ((1, 2, 7), (1, 2, 7))):
        found = erf.compute(model, images, layer="2", unit=unit, arguments=arguments, device="cpu")
        maps = []
        for volume in torch.from_numpy(volumes.astype(np.float32)).double():
            source = volume[None].clone().requires_grad_()
            model(source)[(0, slice(None), *expected_unit)].sum().backward()
            assert source.grad is not None
            maps.append(source.grad[0].abs().sum((0, 1)).numpy())
        assert_statistics_agree(found.statistics(), maps, rtol=1e-11)
        assert found.provenance.unit == expected_unit
        assert found.provenance.feature_shape == (3, 6, 10, 8)
        assert found.provenance.field_size == (7, 7)


def test_a_network_of_signals() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 9, stride=2, padding=4), nn.ReLU(), nn.Conv1d(4, 2, 5, padding=2)).double()
    signal = np.random.default_rng(0).standard_normal((1, 1, 64))
    found = erf.compute(model, erf.from_arrays([signal]), layer="2", arguments=erf.Arguments(signal=True), device="cpu")
    source = torch.from_numpy(signal[:, 0].astype(np.float32)).double()[None].requires_grad_()
    model(source)[0, :, 16].sum().backward()
    assert source.grad is not None
    assert_statistics_agree(found.statistics(), source.grad.abs(), rtol=1e-11)
    assert (found.provenance.unit, found.provenance.unit_center) == ((16,), (0, 32))
    assert found.provenance.field_size == (1, 9 + 2 * 4)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)


class Dead(Broken):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(x) - 100))


class Detached(Broken):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(x)).detach())


class Rounded(Broken):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.first(x)
        return self.last(self.relu(hidden))


class InPlace(Broken):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.exp(self.first(x))
        doubled = hidden * 2
        hidden += 1
        return self.last(doubled) + self.last(hidden)


class Unstable(Broken):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.sqrt(self.relu(self.first(x)) * 0))


def noise_images(count: int = 1) -> "erf.images.ImageSet":
    rng = np.random.default_rng(0)
    return erf.from_arrays([rng.standard_normal((1, 16, 12)) for _ in range(count)])


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Detached, r"passes no gradient to the input.*what 'last' \(Conv2d\) is given is cut"),
        (Rounded, r"passes no gradient to the input.*'first' \(Conv2d\) returns a tensor that is cut"),
        (InPlace, "changed in place"),
        (Unstable, r"NaN or infinite: it is NaN or infinite at the output of 'relu' \(ReLU\)"),
    ],
)
def test_broken_networks_are_refused_with_the_place(network: type[nn.Module], words: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ErfError, match=words) as caught:
        erf.compute(network(), noise_images(), layer="output", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_dead_network_says_where_it_died() -> None:
    torch.manual_seed(0)
    with pytest.warns(ImageWarning, match="2 of 2 images, first array:0: the gradient is zero"):
        found = erf.compute(Dead(), noise_images(2), layer="output", device="cpu")
    assert not found.statistics().mean.any()
    for record in found.images:
        assert "zero at the output of 'first' (Conv2d) and was not at that of 'relu' (ReLU)" in record.message
        assert "dead ReLU" in record.message
