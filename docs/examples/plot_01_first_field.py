"""
A first field
=============

One call computes the effective receptive field of a network over images. Here the network is GMIC with the weights that
come with the package, and the images are generated mammograms.
"""

import erf

gmic = erf.compute("gmic", n=6, size=(832, 640), progress=False)
gmic

# %%
# The map is the mean over images of the absolute gradient at each pixel, an array (H, W). Its square root makes the
# tails visible.

import matplotlib.pyplot as plt

field = gmic["all"].mean
y, x = gmic.provenance.unit_center

figure, axis = plt.subplots(figsize=(4.2, 5), layout="constrained")
shown = axis.imshow((field / field.max()) ** 0.5, cmap="magma")
axis.plot(x, y, "w+", label="centre of the unit")
axis.set(xlabel="x [px]", ylabel="y [px]")
axis.legend()
figure.colorbar(shown, shrink=0.7, label="square root of gradient / maximum")
