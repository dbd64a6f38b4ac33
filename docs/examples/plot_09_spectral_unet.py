"""
U-Net with and without spectral blocks
======================================

A spectral residual block multiplies Fourier coefficients, so that each of its units depends on the whole image. At the
start of training its weight alpha is 0 and the block is an identity; alpha = 1 shows what it can do. The
layer is that of the first up-sampling; colours are logarithmic.
"""

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

import erf

images = erf.load_images("phantom", n=2, size=(192, 192), channels=3)
fields = {
    "without": erf.compute("unet-star", images, layer="up4", progress=False),
    "alpha = 0": erf.compute("unet-star-srb-f", images, layer="up4", progress=False),
    "alpha = 1": erf.compute("unet-star-srb-f", images, layer="up4", model_args={"alpha": 1}, progress=False),
}

figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
for axis, (title, result) in zip(axes, fields.items(), strict=True):
    field = result["all"].mean
    axis.imshow(field / field.max(), cmap="magma", norm=LogNorm(1e-5, 1))
    axis.set_title(title)
    axis.set_facecolor("k")
