"""
Dilated convolutions and gridding
=================================

Three convolutions of dilation 4 reach as far as twelve ordinary ones, but skip pixels. Dilations 1, 2 and 4 have no
gaps.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import erf

noise = np.random.default_rng(0).standard_normal((4, 1, 33, 33))


def stack(*dilations):
    """Return 3x3 convolutions of these dilations."""
    torch.manual_seed(0)
    widths = [1, *[8] * len(dilations)]
    pairs = zip(widths[:-1], widths[1:], dilations, strict=True)
    return nn.Sequential(*[nn.Conv2d(a, b, 3, padding=rate, dilation=rate) for a, b, rate in pairs])


figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for axis, dilations in zip(axes, [(1, 1, 1), (4, 4, 4), (1, 2, 4)], strict=True):
    result = erf.compute(stack(*dilations), noise, layer="2", progress=False)
    axis.imshow(result["all"].mean ** 0.5, cmap="magma")
    axis.set_title("dilations " + ", ".join(map(str, dilations)))
