"""
Strides and the comb
====================

With stride 2 and a kernel of 3, every second pixel belongs to two positions of the kernel, the others to one. The field
has a comb pattern. A kernel of 4 covers all pixels equally often.
"""

import matplotlib.pyplot as plt
import numpy as np
from torch import nn

import erf

noise = np.random.default_rng(0).standard_normal((1, 1, 64, 64))


def stack(kernel):
    """Return three strided convolutions with equal weights."""
    layers = [nn.Conv2d(1, 1, kernel, stride=2, padding=1, bias=False) for _ in range(3)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / kernel**2)
    return nn.Sequential(*layers)


figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
for kernel in (3, 4):
    curve = erf.compute(stack(kernel), noise, layer="2", progress=False)["all"].curve("x")
    axis.step(range(64), curve / curve.sum(), where="mid", label=f"{kernel}x{kernel} kernels")
axis.set(xlabel="x [px]", ylabel="share of the mass", xlim=(18, 52), title="Three convolutions of stride 2")
axis.legend()
