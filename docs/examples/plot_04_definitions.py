"""
Four definitions of a map
=========================

The gradient has a sign. How it becomes a map decides what the map shows: with ``signed``, contributions of opposite
sign cancel over images; ``square`` emphasises the centre; ``abs`` and ``relu`` are wider. One pass serves all four.
Colours show the square root, blue for negative values.
"""

import matplotlib.pyplot as plt
import numpy as np

import erf

definitions = ["abs", "relu", "square", "signed"]
result = erf.compute("gmic", n=6, size=(416, 320), layer="stage3", definitions=definitions, progress=False)

figure, axes = plt.subplots(1, 4, figsize=(9, 3.3), layout="constrained", sharey=True)
for axis, definition in zip(axes, definitions, strict=True):
    field = result["all", definition].mean
    axis.imshow(np.sign(field) * abs(field / abs(field).max()) ** 0.5, cmap="coolwarm", vmin=-1, vmax=1)
    axis.set(title=definition, xlim=(60, 260), ylim=(310, 110))

# %%
# Widths under different definitions must not be compared.

[(definition, result.measure("rms_radius", definition=definition)) for definition in definitions[:3]]
