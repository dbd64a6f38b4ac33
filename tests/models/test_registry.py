"""Every registered network, by one set of tests."""

import numpy as np
import pytest
import torch
from captum.attr import NeuronGradient

import erf
from erf.gradients import frozen, unit_gradient
from erf.images import from_arrays
from erf.layers import center_unit
from erf.models import ModelError, create_model, list_models, model_card
from erf.tracing import trace

SMALL = (192, 160)


@pytest.mark.parametrize("name", list_models())
def test_parameters_and_tap_points(name: str) -> None:
    card, model = model_card(name), create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters
    assert not model.training
    for layer in card.layers:
        assert trace(model, layer, (card.in_channels, *SMALL)).field.size[0] > 0
    assert card.default_layer in card.layers


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Counts of the published configurations: 2.80 M and 1.73 M in Table 3 of the HCT paper (truncated there).
        ("gmic", 2_800_050),
        ("gmic-nyu", 2_800_048),
        ("def-gmic", 2_893_434),
        ("hct-nystrom", 1_736_338),
        ("hct", 1_737_010),
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


@pytest.mark.parametrize("name", list_models())
def test_final_is_what_global_pooling_receives(name: str) -> None:
    model = create_model(name).double()
    kept = []
    model.final.register_forward_hook(lambda module, args, out: kept.append(out))
    inputs = torch.randn(2, 1, *SMALL, dtype=torch.float64)
    output = model(inputs)
    assert (kept[0] >= 0).all()
    if hasattr(model, "classifier"):
        torch.testing.assert_close(model.classifier(kept[0].mean((2, 3))), output, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", list_models())
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    model = create_model(name).double()
    inputs = torch.randn(1, 1, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = center_unit(trace(model, "final", (1, *SMALL)).feature_shape[1:])
    with frozen(model):
        gradient = unit_gradient(model, inputs, "final", unit)
    rng, step = np.random.default_rng(1), 1e-6
    for _ in range(8):
        shift = torch.zeros_like(inputs)
        shift[0, 0, int(rng.integers(SMALL[0])), int(rng.integers(SMALL[1]))] = step
        with torch.no_grad():
            ahead, behind = (model.features(inputs + sign * shift)[0, :, unit[0], unit[1]].sum() for sign in (1, -1))
        difference = float((ahead - behind) / (2 * step))
        # Central differences in float64: about 1e-16 * |f| / step, with |f| up to 1e4 here.
        assert abs(difference - float((gradient * shift).sum() / step)) < 1e-6 * max(1.0, float(gradient.abs().max()))


@pytest.mark.parametrize("name", list_models())
def test_gradient_equals_plain_autograd_and_captum(name: str) -> None:
    model = create_model(name).double()
    inputs = torch.randn(2, 1, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, x = center_unit(trace(model, "final", (1, *SMALL)).feature_shape[1:])
    with frozen(model, torch.channels_last):
        ours = unit_gradient(model, inputs, "final", (y, x))
    inputs.requires_grad_()
    (plain,) = torch.autograd.grad(model.features(inputs)[:, :, y, x].sum(), inputs)
    captum = NeuronGradient(model, model.final).attribute(inputs, neuron_selector=lambda out: out[:, :, y, x].sum(1))
    for expected in (plain, captum):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12 * float(plain.detach().abs().max()))


@pytest.mark.parametrize("name", list_models())
def test_an_image_does_not_see_its_batch(name: str) -> None:
    model = create_model(name).double()
    inputs = torch.randn(3, 1, *SMALL, dtype=torch.float64)
    inputs[2] *= 50
    together = model.features(inputs)
    for index in range(3):
        # Matrix products of another size sum in another order.
        torch.testing.assert_close(model.features(inputs[index : index + 1])[0], together[index], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list_models())
def test_built_twice_from_one_seed_it_is_the_same(name: str) -> None:
    state = torch.random.get_rng_state()
    one, two, other = create_model(name, seed=3), create_model(name, seed=3), create_model(name, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", list_models())
def test_a_run_at_small_size_is_finite(name: str) -> None:
    images = from_arrays([np.random.default_rng(0).standard_normal((1, *SMALL)).astype(np.float32)])
    statistics = erf.compute(create_model(name), images, device="cpu").statistics()
    assert np.isfinite(statistics.mean).all()
    assert statistics.mean.max() > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hctt", {}, "unknown model 'hctt'; did you mean hct"),
        ("resnet", {}, "unknown model 'resnet'"),
        ("gmic", {"depth": 3}, "model 'gmic' does not take these options"),
        ("hct", {"conv_stages": 5}, "conv_stages=5, expected 2, 3 or 4"),
    ],
)
def test_what_cannot_be_built_is_told(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize(("stages", "parameters"), [(2, 1_684_082), (4, 1_949_362)])
def test_other_numbers_of_convolutional_stages(stages: int, parameters: int) -> None:
    # Counted on the public network class with the same option.
    assert sum(parameter.numel() for parameter in create_model("hct", conv_stages=stages).parameters()) == parameters


def test_names_match_patterns() -> None:
    assert list_models("gmic*") == ["gmic", "gmic-nyu"]
