"""
Left and right breasts
======================

HCT has attention, so that its field can follow the image: left breasts lie on the left, right breasts on the right.
"""

import matplotlib.pyplot as plt

import erf

hct = erf.compute("hct", n=12, size=(832, 640), progress=False)

figure, axes = plt.subplots(1, 2, figsize=(7, 4.5), layout="constrained")
for axis, side in zip(axes, ["left", "right"], strict=True):
    field = hct[side].mean
    axis.imshow((field / field.max()) ** 0.25, cmap="magma")
    axis.axvline(hct[side].centroid[1], color="w", ls=":")
    axis.set_title(f"{hct.count(side)} {side} breasts")
figure.suptitle("HCT: fourth root of the field, and its centre of mass")

# %%
# The measure ``lean`` is the distance of the two centres along x, with an interval over patients.

hct.measure("lean")
