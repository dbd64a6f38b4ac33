"""
Square-root growth
==================

The theoretical receptive field of n stacked convolutions grows with n. The effective one grows with its square root
(Luo et al. 2016): the squared gradient of random weights follows the n-fold convolution of a box, whose standard
deviation is :math:`\\sqrt{n (k^2 - 1) / 12}` along each axis.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import erf

depths = [1, 2, 4, 8, 16, 32]
noise = np.random.default_rng(0).standard_normal((1, 1, 97, 97))


def rms_radius(depth, seed):
    """Measure a stack of random 3x3 convolutions with 16 channels."""
    torch.manual_seed(seed)
    stack = nn.Sequential(*[nn.LazyConv2d(16, 3, padding=1, bias=False) for _ in range(depth)])
    stack(torch.zeros(1, 1, 97, 97))
    result = erf.compute(stack, noise, layer=str(depth - 1), definitions=["square"], progress=False)
    return result.measure("rms_radius").value


measured = np.array([[rms_radius(depth, seed) for depth in depths] for seed in range(6)])

# %%
# Both axes together have the mean squared radius :math:`2 n (3^2 - 1) / 12`. Each point is one draw of weights.

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
axis.loglog(depths, [2 * depth + 1 for depth in depths], "s-", label="theoretical field, side")
axis.loglog(depths, np.sqrt(2 * np.array(depths) * 8 / 12), "k--", label="RMS radius, theory")
axis.loglog(depths, measured.T, "o", color="tab:orange", ms=4)
axis.set(xlabel="number of 3x3 convolutions", ylabel="pixels", xticks=depths, xticklabels=depths)
axis.legend()
