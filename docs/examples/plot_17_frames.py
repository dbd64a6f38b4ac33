"""
xarray and pandas
=================

A result becomes an ``xarray.DataTree`` with coordinates in pixels, and a table of images for pandas. Both libraries
have tools for what comes next.
"""

import matplotlib.pyplot as plt

import erf

result = erf.compute("gmic", n=8, size=(416, 320), layer="stage4", progress=False)
field = result.to_xarray()["all"]["mean"].sel(definition="abs")
(field / field.max()).plot.contourf(levels=[0.01, 0.03, 0.1, 0.3, 1], yincrease=False, cmap="magma")
plt.gca().set_aspect("equal")

# %%

result.to_pandas()[["laterality", "view", "patient_id"]].head()
