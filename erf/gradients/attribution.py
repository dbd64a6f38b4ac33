"""The receptive field as an attribution with captum's interface, for code that uses captum."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from erf.errors import InputError
from erf.gradients.autograd import Target, in_place_errors
from erf.gradients.units import CENTER, UnitChoice, resolve_units
from erf.network.layers import forward_to
from erf.network.modes import frozen
from erf.theory.tracing import trace

NeuronSelector = UnitChoice | Callable[[Tensor], Tensor]


class UnitGradient:
    """Gradient of a unit with respect to the input, called as captum's `NeuronGradient` is.

    Unlike there, the layer is named by its path, its output may be a map of any layout, and a unit is a position with
    all its channels. During a call the model is in eval mode and its parameters are frozen.

    Args:
        model: the network.
        layer: path of the module.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> attribution = erf.UnitGradient(model, "1")
        >>> attribution.attribute(torch.zeros(1, 1, 9, 9)).shape
        torch.Size([1, 1, 9, 9])
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model, self.layer = model, layer

    def attribute(
        self, inputs: Tensor | tuple[Tensor, ...], neuron_selector: NeuronSelector = CENTER
    ) -> Tensor | tuple[Tensor, ...]:
        """Compute the gradient of a unit with respect to the inputs.

        Args:
            inputs: `(N, C, *axes)`, or a tuple of such tensors for a model with several inputs.
            neuron_selector: a unit as in `erf.compute` ('center', (y, x), 'pixel:y,x'), (channel, y, x), or a function
                from the layer's output to a value for each image.

        Returns:
            Gradients of the shape of `inputs`.
        """
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        value = neuron_selector if callable(neuron_selector) else self._target(tensors, neuron_selector).totals
        with frozen(self.model), torch.enable_grad():
            sources = [tensor.detach().requires_grad_() for tensor in tensors]
            found = forward_to(self.model, [self.layer], sources, lambda _, output: value(output).sum())
            with in_place_errors():
                gradients = torch.autograd.grad(found[self.layer], sources, materialize_grads=True)
        return gradients if isinstance(inputs, tuple) else gradients[0]

    def _target(self, tensors: tuple[Tensor, ...], choice: UnitChoice) -> Target:
        blanks = tuple(torch.zeros_like(tensor[:1]) for tensor in tensors)
        traced = trace(self.model, [self.layer], tensors[0].shape[1:], lambda _: blanks)[self.layer]
        shape = traced.feature_shape
        weights = None
        if isinstance(choice, tuple) and len(choice) == len(shape) and all(isinstance(index, int) for index in choice):
            weights = torch.nn.functional.one_hot(torch.tensor(choice[:1]), shape[0]).to(tensors[0])
            choice = tuple(choice[1:])
        units = resolve_units(choice, self.layer, shape[1:], traced.field)
        if len(units) > 1:
            raise InputError(f"{len(units)} units; expected one for each call")
        return Target(self.layer, units, traced.layout, weights)
