"""Draw the picture of the site's first page: `python front.py gmic.h5 hct.h5 front.png`."""

import sys

import matplotlib.pyplot as plt
import numpy as np

import erf

gmic, hct, path = erf.load(sys.argv[1]), erf.load(sys.argv[2]), sys.argv[3]
panels = [(gmic, "all", "GMIC"), (hct, "left", "HCT, left breasts"), (hct, "right", "HCT, right breasts")]
figure, axes = plt.subplots(1, 3, figsize=(8, 3.9), layout="constrained", sharey=True, dpi=100)
for axis, (result, subset, title) in zip(axes, panels, strict=True):
    field = result[subset].mean
    height, width = field.shape
    shown = axis.imshow(np.log10(field / field.max() + 1e-9), cmap="viridis", vmin=-4, vmax=0)
    if subset != "all":  # the outline of most breasts
        tissue = result.overview().tissue[[subset in image.subsets for image in result.images]].mean(0)
        rows, columns = ((np.arange(n) + 0.5) * height / len(tissue) for n in tissue.shape)
        axis.contour(columns, rows, tissue, [0.5], colors="w", linewidths=1, linestyles="--")
    axis.set_title(title, fontsize=14)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
bar = figure.colorbar(shown, ax=list(axes), shrink=0.9, ticks=range(-4, 1))
bar.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1"])
bar.set_label("gradient / its maximum", fontsize=12)
figure.savefig(path)
