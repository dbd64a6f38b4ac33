"""
The windows of a Swin
=====================

A Swin transformer attends within windows, which every second block shifts by half a window. After the first stage,
which has one unshifted and one shifted block, a unit sees the windows that its own window overlaps, in hard steps.
"""

import matplotlib.pyplot as plt
import numpy as np

import erf

noise = np.random.default_rng(0).standard_normal((4, 3, 112, 112))
network = erf.build_network("timm:swin_tiny_patch4_window7_224", size=(112, 112))
images = erf.from_arrays(list(noise))
results = erf.compute_layers(network.model, images, ["layers.0.blocks.0", "layers.0.blocks.1"])

figure, axes = plt.subplots(1, 2, figsize=(7, 3.8), layout="constrained")
for axis, title, result in zip(axes, ["one block", "two blocks, the second shifted"], results, strict=True):
    field = result["all"].mean
    axis.imshow((field / field.max()) ** 0.25, cmap="magma")
    axis.set(title=title, xticks=range(0, 113, 28), yticks=range(0, 113, 28))
figure.suptitle("Fourth root of the field; ticks are at the borders of windows")
