"""
Several units
=============

A grid of units is measured in one forward pass per image. Near the border a field is cut off, and its peak moves
inwards.
"""

import matplotlib.pyplot as plt

import erf

network = erf.build_network("gmic", size=(416, 320))
images = erf.load_images("phantom", n=4, size=(416, 320))
results = erf.compute_layers(network.model, images, ["stage3"], erf.Settings(unit="grid:3x3"))

figure, axes = plt.subplots(3, 3, figsize=(5, 6.3), layout="constrained", sharex=True, sharey=True)
for axis, result in zip(axes.flat, results, strict=True):
    y, x = result.provenance.unit_center
    axis.imshow(result["all"].mean ** 0.5, cmap="magma")
    axis.plot(x, y, "w+")
figure.suptitle("GMIC, stage 3: square roots of nine fields")
