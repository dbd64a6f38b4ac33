"""Attribution methods: the plain gradient, and those of captum.

Kokhlikyan et al. Captum: a unified and generic model interpretability library for PyTorch. arXiv 2009.07896.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from erf.errors import InputError
from erf.gradients.autograd import Target, unit_gradients
from erf.gradients.blur_path import integrate
from erf.network.inputs import Arrange, alone
from erf.network.layers import OUTPUT, find_layer, forward_to

Method = Callable[[nn.Module, Tensor, Sequence[Target], Arrange, Mapping[str, Any]], Iterator[Tensor]]


def attributions(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    targets: Sequence[Target],
    arrange: Arrange = alone,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Tensor]:
    """Attributions (N, C, H, W) of one of `METHODS` to inputs, for each of several units."""
    return METHODS[name](model, inputs, targets, arrange, options or {})


@contextmanager
def _captum_errors(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Context manager that converts captum's errors into an `InputError` of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that hooks are set and removed again
            yield
    except (TypeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "none"
        raise InputError(f"captum's {name} cannot be used here, options {given}: {reason}") from error


def _no_options(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InputError(f"method {name} has no options; found {', '.join(options)}")


def _gradient(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, options: Mapping[str, Any]
) -> Iterator[Tensor]:
    _no_options("gradient", options)
    yield from unit_gradients(model, inputs, targets, arrange)


def _input_x_gradient(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, options: Mapping[str, Any]
) -> Iterator[Tensor]:
    _no_options("input-x-gradient", options)
    for gradient in unit_gradients(model, inputs, targets, arrange):
        yield gradient * inputs


class _Arranged(nn.Module):
    """A network that takes inputs (N, C, H, W), under the module names of the original below `network`."""

    def __init__(self, network: nn.Module, arrange: Arrange) -> None:
        super().__init__()
        self.network, self.arrange = network, arrange

    def forward(self, inputs: Tensor) -> Any:
        return self.network(*self.arrange(inputs))


def _neuron(name: str, baseline: str = "", **defaults: Any) -> Method:
    """One of captum's neuron attributions; the neuron is the sum over the channels of the unit."""

    def attribute(
        model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, options: Mapping[str, Any]
    ) -> Iterator[Tensor]:
        from captum import attr  # takes a second, and is rarely asked for

        for target in targets:
            if ":" in target.layer or target.layer == OUTPUT:
                raise InputError(f"method {name} needs a module that returns one tensor; found layer '{target.layer}'")
            method = getattr(attr, name)(_Arranged(model, arrange), find_layer(model, target.layer))
            arguments = dict(defaults) | dict(options)
            if baseline:
                arguments.setdefault(baseline, torch.zeros_like(inputs))
            if name == "NeuronIntegratedGradients":
                arguments.setdefault("internal_batch_size", len(inputs))  # else all steps are in memory at once
            selector = _selector(target)
            with _captum_errors(name, options), torch.enable_grad():
                source = inputs.detach().clone().requires_grad_()
                yield method.attribute(source, selector, **arguments).detach()

    return attribute


def _selector(target: Target) -> Callable[[Any], Tensor]:
    """Build the function from a layer's output to unit values, also for batches that captum has expanded."""

    def totals(output: Any) -> Tensor:
        tensor = output[0] if isinstance(output, tuple) else output
        count = len(tensor)
        if len(target.units) == 1 and (target.weights is None or len(target.weights) == 1):
            return target.totals(tensor)
        # Copies of a batch follow each other, as many as the method makes of each image.
        number = max(len(target.units), 1 if target.weights is None else len(target.weights))
        repeats = count // number
        units = target.units * repeats if len(target.units) > 1 else target.units
        weights = target.weights
        if weights is not None and len(weights) > 1:
            weights = weights.repeat(repeats, 1)
        return replace(target, units=units, weights=weights).totals(tensor)

    return totals


def _occlusion(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, options: Mapping[str, Any]
) -> Iterator[Tensor]:
    """Compute by how much the unit's value falls when a patch of all channels is zeroed, divided among its pixels."""
    from captum.attr import Occlusion

    arguments = {"side": 16} | dict(options)
    side, stride = int(arguments.pop("side")), int(arguments.pop("stride", arguments.get("side", 0)) or 0)
    windows, strides = (inputs.shape[1], side, side), (inputs.shape[1], stride or side, stride or side)
    for target in targets:

        def value(x: Tensor, target: Target = target) -> Tensor:
            return forward_to(model, [target.layer], arrange(x), lambda _, out: _selector(target)(out))[target.layer]

        with _captum_errors("Occlusion", options), torch.no_grad():
            found = Occlusion(value).attribute(inputs, windows, strides=strides, **arguments)
        yield found / (side * side * inputs.shape[1])


def _blur_path(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, options: Mapping[str, Any]
) -> Iterator[Tensor]:
    if unknown := sorted(set(options) - {"sigma", "steps", "side"}):
        raise InputError(f"method blur-path has no option {unknown[0]}; expected sigma, steps or side")
    yield from integrate(model, inputs, targets, arrange, **options)


METHODS: dict[str, Method] = {
    "gradient": _gradient,
    "input-x-gradient": _input_x_gradient,
    "integrated-gradients": _neuron("NeuronIntegratedGradients", n_steps=20),
    "guided-backprop": _neuron("NeuronGuidedBackprop"),
    "deeplift": _neuron("NeuronDeepLift"),
    "gradient-shap": _neuron("NeuronGradientShap", baseline="baselines", n_samples=5, stdevs=0.1),
    "occlusion": _occlusion,
    "blur-path": _blur_path,
}
"""Methods by name; options are those of captum's class, for `occlusion` the side and stride of the patch, for
`blur-path` those of `integrate`."""


def is_random(name: str) -> bool:
    """Whether a method draws random numbers."""
    return name == "gradient-shap"


METHOD_DESCRIPTIONS = {
    "gradient": "the gradient of the unit (the effective receptive field)",
    "input-x-gradient": "the gradient times the image",
    "integrated-gradients": "the gradient averaged on the way from a black image, times the image; n_steps=20",
    "guided-backprop": "the gradient, of which ReLUs pass on positive parts only",
    "deeplift": "differences of activations from those of a black image, passed back",
    "gradient-shap": "integrated gradients at random places of the way, with noise; n_samples=5, stdevs=0.1",
    "occlusion": "how much the unit's value falls when a patch is set to zero; side=16, stride=side",
    "blur-path": "the gradient averaged on the way from a blurred image, times its change; sigma=1.2, steps=50, side=9",
}
