"""
A measure that depends on the unit of the gradient
==================================================

RepLKNet's area ratio takes the logarithm of 1 + map. Multiplying all gradients by a number, which changes nothing about
a network, therefore changes it, and even the order of networks. The radius that holds half of the mass stays.
"""

import matplotlib.pyplot as plt
import numpy as np

from erf.measures import measure_map

with np.load("data/openerf.npz") as archive:
    maps = {name: archive[name].astype(float) for name in archive}

scales = 10.0 ** np.arange(0, 9)
figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, field in maps.items():
    share = field / field.sum()
    axis.semilogx(scales, [measure_map(share * scale, ["replknet50"])["replknet50"] for scale in scales], label=name)
axis.set(xlabel="factor of the gradient", ylabel="RepLKNet's area ratio at 50 %")
axis.legend(fontsize=6)
