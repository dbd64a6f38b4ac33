"""
Finding a wrong gradient
========================

A custom backward pass that does not belong to its forward pass gives a wrong field. ``erf.check`` compares gradients
with finite differences, and finds it.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import erf


class WrongSquare(torch.autograd.Function):
    """Squares, with the gradient of the identity."""

    @staticmethod
    def forward(context, x):
        """Return the squares."""
        return x**2

    @staticmethod
    def backward(context, gradient):
        """Return the wrong gradient."""
        return gradient


class Square(nn.Module):
    """Layer that squares, with a right or a wrong gradient."""

    def __init__(self, square):
        super().__init__()
        self.square = square

    def forward(self, x):
        """Apply the function."""
        return self.square(x)


def network(square):
    """Return two convolutions with squares between them."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5), Square(square), nn.Conv2d(4, 2, 5))


erf.check(network(WrongSquare.apply), "2", size=(32, 32))

# %%
# The fields differ.

images = torch.randn(20, 1, 15, 15)
figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
for axis, title, square in [(axes[0], "right", torch.square), (axes[1], "wrong", WrongSquare.apply)]:
    axis.imshow(erf.compute(network(square), images, layer="2", progress=False)["all"].mean, cmap="magma")
    axis.set_title(f"{title} gradient")
