"""Every registered network, by one set of tests."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NeuronGradient
from safetensors.torch import save_file
from torch import nn

import erf
from erf.gradients.autograd import unit_gradient
from erf.gradients.units import center_unit
from erf.images import from_arrays
from erf.models import ModelCard, ModelError, create_model, list_models, load_weights, model_card
from erf.models.layers.residual import initialise
from erf.network.layers import forward_to
from erf.network.modes import frozen
from erf.theory.tracing import trace
from tests.agreement import assert_gradients_agree

POOLED = [name for name in list_models() if model_card(name).default_layer == "final" and name != "gmic-nyu"]
"""Networks that take the mean of a map and classify it; gmic-nyu makes saliency maps instead."""

WIDER_OR_DEEPER = (
    "convmixer-1024-20", "convmixer-1536-20", "mixer-base", "mobilenetv3-small-075", "mobilenetv3-small-100", "resnet34",
    "swin-base", "vit-base", "vit-small",
)  # fmt: skip
"""Networks that differ from another one in numbers of channels, blocks and kernels only, by the same code."""

KINDS = [name for name in list_models() if name not in WIDER_OR_DEEPER]
"""One network of each kind, for all tests; the others are counted and run on shapes alone."""

MAGNIFICATION = [name for name in list_models() if "magnification" in model_card(name).paper]


def small_size(card: ModelCard) -> tuple[int, int]:
    """A small input that every layer of a network can work on: strides reach 128 in those for mammograms."""
    if card.in_channels == 1:
        return (192, 160)
    if card.name.startswith("convmixer"):  # all layers but the first at one resolution, and wide
        return (42, 35)
    return (64, 48) if card.default_layer == "head" or card.name == "fnet" else (96, 64)


def shapes_only(card: ModelCard, size: tuple[int, int]) -> nn.Module:
    """A network whose parameters have shapes and no values; those for mammograms are small, and some compute values."""
    with torch.device("cpu" if card.in_channels == 1 else "meta"):
        return create_model(card.name, size=size).to("meta")


@dataclass(frozen=True)
class Subject:
    """A network in float64 at a small size, all of whose parts take part.

    Weights are drawn so that neither values nor gradients fade with depth, and scales that start at 0, such as alpha of
    a spectral residual block, are on.
    """

    name: str
    card: ModelCard
    model: Any
    size: tuple[int, int]

    @property
    def layer(self) -> str:
        return self.card.default_layer

    def inputs(self, count: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.card.in_channels, *self.size, dtype=torch.float64, generator=generator)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        return forward_to(self.model, [self.layer], inputs, lambda _, output: output)[self.layer]

    @cached_property
    def unit(self) -> tuple[int, ...]:
        shape = (self.card.in_channels, *self.size)
        return center_unit(trace(self.model, [self.layer], shape)[self.layer].feature_shape[1:])

    @cached_property
    def gradient(self) -> torch.Tensor:
        """The gradient of the unit for the first input."""
        unit = self.unit
        with frozen(self.model, torch.channels_last):
            return unit_gradient(self.model, self.inputs(1), self.layer, unit)


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    card = model_card(request.param)
    size = small_size(card)
    model = create_model(card.name, size=size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        initialise(model)
    model.double()
    for name, parameter in model.named_parameters():
        if not name.endswith("bias") and not parameter.any():
            parameter.data.fill_(0.5)
    return Subject(card.name, card, model, size)


@pytest.mark.parametrize("name", list_models())
def test_parameters_and_layers(name: str) -> None:
    card = model_card(name)
    model = shapes_only(card, card.input_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters
    assert not model.training
    called = []
    for layer in card.layers:
        model.get_submodule(layer).register_forward_hook(lambda module, args, out, layer=layer: called.append(layer))
    with torch.no_grad():
        model(torch.empty(1, card.in_channels, *card.input_size, device="meta"))
    assert called == list(card.layers)
    assert card.default_layer in card.layers


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Table 3 of the HCT paper: 2.80, 2.89, 1.73 M (truncated there); GMIC as published.
        ("gmic", 2_800_050),
        ("gmic-nyu", 2_800_048),
        ("def-gmic", 2_893_434),
        ("hct-nystrom", 1_736_338),
        ("hct", 1_737_010),
        # Table 1 of the SRB paper: 1.943, 2.076, 29.59, 31.70, 68.06, 39.76, 49.49 M.
        ("unet", 1_942_594),
        ("unet-srb-f", 2_076_038),
        ("spm", 29_589_290),
        ("spm-srb-f", 29_589_290 + 2_109_569),
        ("pspnet", 68_059_076),
        ("deeplabv3", 39_757_762),
        ("danet", 49_485_488),
        # Table 3 of the SRB paper, blocks on 128 channels: 33.02 and 16.64 K.
        ("unet-star-non-local", 482_754 + 33_024),
        ("unet-star-a2", 482_754 + 16_640),
    ],
)
def test_published_counts(name: str, parameters: int) -> None:
    assert model_card(name).parameters == parameters


@pytest.mark.parametrize("name", ["gmic", "hct"])
def test_feature_maps_at_full_size_follow_the_strides(name: str) -> None:
    # 3328x2560 through 7x7/2, pooling 3/2 without padding, and five stages of stride 2.
    expected = [(1664, 1280), (416, 320), (208, 160), (104, 80), (52, 40), (26, 20), (26, 20)]
    model = create_model(name)
    with torch.device("meta"):
        image = torch.empty(1, 1, *model_card(name).input_size)
    shapes: list[tuple[int, ...]] = []
    for layer in model_card(name).layers:
        model.get_submodule(layer).register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape[2:])))
    model.to("meta")(image)
    assert shapes == expected


@pytest.mark.parametrize("subject", POOLED, indirect=True)
def test_final_is_what_global_pooling_receives(subject: Subject) -> None:
    inputs = subject.inputs(2)
    pooled = subject.features(inputs).mean((2, 3))
    assert_gradients_agree(subject.model.classifier(pooled), subject.model(inputs), rtol=1e-11)


def test_gradient_agrees_with_finite_differences(subject: Subject) -> None:
    inputs, gradient, (y, x) = subject.inputs(1), subject.gradient[0], subject.unit
    rng, step = np.random.default_rng(1), 1e-7
    shifts = torch.zeros(2, *gradient.shape, dtype=torch.float64)
    for shift, place in zip(shifts, (int(gradient.abs().argmax()), int(rng.integers(gradient.numel()))), strict=True):
        shift.view(-1)[place] = step  # of the pixel that matters most, and of any
    with torch.no_grad():
        ahead, behind = (subject.features(inputs + sign * shifts)[:, :, y, x].sum(1) for sign in (1, -1))
    found, expected = (ahead - behind) / (2 * step), (gradient * shifts).sum((1, 2, 3)) / step
    scale = float(gradient.abs().max())
    assert scale > 0
    # Rounding of central differences, 1e-16 |f| / step, is below 2e-6 of the largest gradient in all networks; in the
    # deepest (pspnet, 101 layers of ReLU) a few kinks within the step bring 1.5e-5.
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5 * scale)


def test_gradient_equals_plain_autograd_and_captum(subject: Subject) -> None:
    inputs, (y, x) = subject.inputs(1), subject.unit
    inputs.requires_grad_()
    kept: list[torch.Tensor] = []
    module = subject.model.get_submodule(subject.layer)
    handle = module.register_forward_hook(lambda module, args, out: kept.append(out))
    subject.model(inputs)
    handle.remove()
    (plain,) = torch.autograd.grad(kept[0][:, :, y, x].sum(), inputs)
    captum = NeuronGradient(subject.model, module).attribute(inputs, neuron_selector=lambda out: out[:, :, y, x].sum(1))
    for expected in (plain, captum):
        assert_gradients_agree(subject.gradient, expected, rtol=1e-10)


def test_an_image_does_not_see_its_batch(subject: Subject) -> None:
    inputs = subject.inputs(2)
    inputs[1] *= 50
    with torch.no_grad():
        together = subject.features(inputs)
        for index in range(2):
            alone = subject.features(inputs[index : index + 1])[0]
            # Matrix products of another size sum in another order.
            assert_gradients_agree(alone, together[index], rtol=1e-10)


def test_eval_mode_is_deterministic(subject: Subject) -> None:
    inputs = subject.inputs(1)
    with torch.no_grad():
        assert torch.equal(subject.model(inputs), subject.model(inputs))


def test_state_dict_round_trips(subject: Subject, tmp_path: Path) -> None:
    save_file(subject.model.state_dict(), tmp_path / "weights.safetensors")
    other = copy.deepcopy(subject.model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    load_weights(other, tmp_path / "weights.safetensors")
    expected = subject.model.state_dict()
    for key, value in other.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", KINDS)
def test_built_twice_from_one_seed_it_is_the_same(name: str) -> None:
    state = torch.random.get_rng_state()
    size = small_size(model_card(name))
    one, two, other = (create_model(name, seed=seed, size=size) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_at_small_size_is_finite(name: str) -> None:
    card = model_card(name)
    size = small_size(card)
    noise = np.random.default_rng(0).standard_normal((card.in_channels, *size)).astype(np.float32)
    model = create_model(name, size=size)
    # The gradient is compared with plain autograd in double precision, above.
    found = erf.compute(model, from_arrays([noise]), layer=card.default_layer, device="cpu", self_check=False)
    mean = found.statistics().mean
    assert np.isfinite(mean).all()
    # Far above rounding: the channels of a unit must not cancel, as they do behind an untrained layer norm. With random
    # signs they do not.
    y, x = found.provenance.unit
    inputs = torch.from_numpy(noise)[None].requires_grad_()
    values = forward_to(model, [card.default_layer], inputs, lambda _, output: output)[card.default_layer][0, :, y, x]
    signs = torch.randn(len(values), generator=torch.Generator().manual_seed(0)).sign()
    (gradient,) = torch.autograd.grad(values @ signs, inputs)
    assert mean.max() > 0.01 * float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", MAGNIFICATION)
def test_networks_of_the_magnification_paper_take_both_sizes(name: str) -> None:
    for size in ((224, 224), (448, 672)):
        model = shapes_only(model_card(name), size)
        with torch.no_grad():
            assert model(torch.empty(1, 3, *size, device="meta")).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hctt", {}, "unknown model 'hctt'; did you mean hct"),
        ("transformer", {}, "unknown model 'transformer'"),
        ("unet", {"places": "before-up5"}, "no place 'before-up5', expected some of before-up4"),
        ("unet", {"places": 5}, "5 places, expected 0 to 4"),
        ("unet", {"block": "srb"}, "block 'srb' not known"),
        ("pspnet", {"depth": 34}, "depth=34, expected 50 or 101"),
        ("wavemix", {"stem": "x"}, "stem 'x' not known"),
        ("wavemix", {"dim": 30}, "dim=30, expected a multiple of 4"),
        ("resnet50-srb-f", {"places": "layer9"}, "no module 'layer9'"),
        ("resnet50-srb-f", {"places": "fc"}, "yields no map"),
        ("vit-tiny", {"depth": "x"}, "timm cannot build vit_tiny_patch16_224"),
        ("gmic", {"depth": 3}, "model 'gmic' does not take these options"),
        ("hct", {"conv_stages": 5}, "conv_stages=5, expected 2, 3 or 4"),
    ],
)
def test_what_cannot_be_built_is_told(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "spm", "deeplabv3"])
def test_residual_branches_are_on_before_training(name: str) -> None:
    norms: list[Any] = [
        module.bn3 if hasattr(module, "bn3") else module.bn2
        for module in create_model(name).modules()
        if hasattr(module, "conv2") and hasattr(module, "bn2")
    ]
    assert len(norms) >= 8
    assert all(norm.weight.all() for norm in norms)


@pytest.mark.parametrize(("stages", "parameters"), [(2, 1_684_082), (4, 1_949_362)])
def test_other_numbers_of_convolutional_stages(stages: int, parameters: int) -> None:
    # Counted on the public network class with the same option.
    assert sum(parameter.numel() for parameter in create_model("hct", conv_stages=stages).parameters()) == parameters


def test_names_match_patterns() -> None:
    assert list_models("gmic*") == ["gmic", "gmic-nyu"]
