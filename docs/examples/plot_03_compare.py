"""
Comparing two networks
======================

Both networks see the same images, so that differences are paired. Each measure has a 95 % interval over patients, and
each difference a p value.
"""

import matplotlib.pyplot as plt
import numpy as np

import erf

images = erf.load_images("phantom", n=24, size=(416, 320))
gmic = erf.compute("gmic", images, progress=False)
hct = erf.compute("hct", images, progress=False)

figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
for name, result in [("gmic", gmic), ("hct", hct)]:
    curve = result["all"].curve("x")
    share = (curve / curve.sum()).reshape(-1, 8).mean(1)  # over 8 px, because strides cause a comb
    axis.plot(4 + 8 * np.arange(len(share)), share, label=name)
axis.set(xlabel="x [px]", ylabel="share of the mass per px", title="Curves across rows")
axis.legend()

# %%

erf.compare(gmic, hct, measures=["r50", "r90", "gaussian_x", "anisotropy"])
