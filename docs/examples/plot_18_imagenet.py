"""
Ten networks trained on ImageNet
================================

The maps were computed by OpenERF (MIT licence, see the folder ``data``) from networks of timm with ImageNet weights.
The curves show how much of the mass lies within a distance of the centre.
"""

import matplotlib.pyplot as plt
import numpy as np

with np.load("data/openerf.npz") as archive:
    maps = {name: archive[name].astype(float) for name in archive}

figure, axes = plt.subplots(2, 5, figsize=(10, 4.6), layout="constrained")
for axis, (name, field) in zip(axes.flat, maps.items(), strict=True):
    axis.imshow((field / field.max()) ** 0.5, cmap="magma")
    axis.set_axis_off()
    axis.set_title(name.split(".")[0].replace("_patch", "\npatch"), fontsize=8)

# %%
# Distances are shares of the side, because one of the networks has larger images.

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, field in maps.items():
    y, x = (np.indices(field.shape) + 0.5) / len(field) - 0.5
    distance = np.hypot(y, x).ravel()
    order = distance.argsort()
    axis.plot(distance[order], field.ravel()[order].cumsum() / field.sum(), label=name.split(".")[0])
axis.set(xlabel="distance from the centre / side", ylabel="share of the mass")
axis.legend(fontsize=7)
