"""
Untrained and trained
=====================

Training changes a field. The same network is measured with random weights and with those that come with the package.
"""

import matplotlib.pyplot as plt

import erf

images = erf.load_images("phantom", n=8, size=(832, 640))
untrained = erf.compute("hct", images, weights="none", progress=False)
trained = erf.compute("hct", images, weights="shipped", progress=False)

figure, axes = plt.subplots(1, 2, figsize=(7, 4.5), layout="constrained")
for axis, title, result in [(axes[0], "untrained", untrained), (axes[1], "trained", trained)]:
    field = result["left"].mean
    axis.imshow((field / field.max()) ** 0.25, cmap="magma")
    axis.set_title(f"{title}, left breasts")

# %%
# One draw of weights does not stand for all: see `untrained networks <../training.html#untrained-networks>`_.

erf.compare(untrained, trained, labels=["untrained", "trained"], measures=["r50", "r90", "on_tissue"])
