"""`erf check`: verify the gradient of a network's unit."""

from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import BAD_INPUT, busy, reported_errors
from erf.cli.network import Depth, LayerName, ModelArguments, ModelName, Size, Trust, UnitName, Weights, build_network
from erf.cli.options import LARGEST_SEED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from erf.gradients.autograd import Target
    from erf.network.inputs import Arguments

_TOLERANCE = {"float64": 1e-4, "float32": 3e-2}
"""Allowed error of finite differences relative to the largest: ReLU and maximum kinks within the step, and rounding."""


def check(
    model: ModelName,
    layer: LayerName = "",
    unit: UnitName = "center",
    weights: Weights = "",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of untrained weights.")] = 0,
    image_seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the noise that is the image.")] = 0,
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    depth: Depth = 0,
) -> None:
    """Check a unit's gradient on noise: where it ends, whether finite differences and theory agree with it.

    Random pixels are moved one by one and the unit's value is looked at: the receptive field without any backward pass.
    Exit code 2 if something is wrong.
    """
    with reported_errors():
        import torch

        from erf.cli.tables import print_table
        from erf.gradients.autograd import Target
        from erf.gradients.flow import switched_off
        from erf.gradients.support import is_inside, probe, theoretical_box
        from erf.network.devices import memory_errors
        from erf.network.modes import frozen
        from erf.theory.tracing import blank

        network = build_network(model, weights, seed, size, model_arg, depth, trust)
        with busy("checking"), memory_errors("use a smaller --size"):
            name, traced, place = network.tap(layer, unit)
            target = Target(name, (place,), traced.layout)
            rows = [("random numbers in eval mode", "drawn: the run seeds them" if traced.random else "none", True)]
            rows.append(("modules that differ in training", switched_off(network.model) or "none", True))
            generator = torch.Generator().manual_seed(image_seed)
            noise = torch.randn((1, *network.input_shape), generator=generator).to(blank(network.model, ()))
            with frozen(network.model):
                rows += _gradient_rows(network.model, noise, target, network.arguments, traced.random)
            if all(fine for *_, fine in rows):
                found = probe(network.model, name, place, traced, network.input_shape, network.arguments)
                kept = is_inside(found.box, theoretical_box(traced, place, network.size))
                what = f"gradient inside the theoretical field ({traced.field.kind})"
                rows.append((what, "yes" if kept else "no: theory is wrong", kept))
                rows.append(
                    ("fast way of computing", _way_words(network.model, noise, target, network.arguments), True)
                )
        print_table(
            f"{model}, layer {name}, unit {','.join(map(str, place))}, input {'x'.join(map(str, network.input_shape))}",
            ["check", "found", ""],
            [[what, words, "ok" if fine else "WRONG"] for what, words, fine in rows],
            left=3,
        )
        is_fine = all(fine for *_, fine in rows)
    if not is_fine:
        raise typer.Exit(BAD_INPUT)


_IMAGES = 16
"""Number of images of the trial run that chooses the way of computing: as many as fit in one batch."""


def _way_words(model: "nn.Module", noise: "Tensor", target: "Target", arguments: "Arguments") -> str:
    """Describe the way in which a run would compute: the fast way only if its gradient equals that of the plain way."""
    from erf.engine import choose_run_way
    from erf.engine.settings import Settings
    from erf.images import from_arrays

    settings = Settings(unit=target.units[0], arguments=arguments, device=noise.device.type)
    images = from_arrays([noise[0].cpu().numpy()] * _IMAGES)
    choice = choose_run_way(model, images, [target.layer], settings)
    if choice.warning:
        return choice.warning.removeprefix("self-check: ")
    if not choice.differences:
        return choice.record["result"]
    (difference,) = choice.differences.values()
    return f"{choice.way.words}; differs by {difference.largest_words}"


def _gradient_rows(
    model: "nn.Module", noise: "Tensor", target: "Target", arguments: "Arguments", is_random: bool
) -> list[tuple[str, str, bool]]:
    from erf.gradients.flow import directions_agree, gradient_end, is_repeatable, pixels_agree

    end = gradient_end(model, noise, target, arguments)
    rows = [("gradient", end or "arrives at the input", not end)]
    if end or is_random:
        return rows
    same = is_repeatable(model, noise, target, arguments)
    rows.append(("the same value twice", "bit by bit" if same else "no", same))
    double = _in_double(model, noise, arguments)
    try:
        for what, agree in (("random directions", directions_agree), ("random pixels", pixels_agree)):
            error = agree(model, double, target, arguments).error
            precision = str(double.dtype).removeprefix("torch.")
            fine = error <= _TOLERANCE[precision]
            rows.append((f"finite differences, {what}", f"differ by {error:.1e} of the largest ({precision})", fine))
    finally:
        model.to(noise.dtype)
    return rows


def _in_double(model: "nn.Module", noise: "Tensor", arguments: "Arguments") -> "Tensor":
    """Convert model and noise to double precision, unless the model cannot run in it; return the noise."""
    import torch

    try:
        with torch.no_grad():
            model.double()(*arguments(noise.double()))
    except (RuntimeError, TypeError, ValueError):
        model.to(noise.dtype)
        return noise
    return noise.double()
