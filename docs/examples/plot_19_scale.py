"""
Which number is a property of the network?
==========================================

A gradient has a unit: it is a million times larger if the loss is, and nothing about the network changes. RepLKNet's
area ratio, the number that papers print, takes the logarithm of 1 + map. Multiplying all gradients by a number changes
it, and even the order of networks. The radius that holds half of the mass stays.

The ten maps of networks with ImageNet weights were computed by OpenERF (MIT licence, see the folder ``data``) and are
imported. On the left, the order depends on the unit; on the right, it does not. A table of area ratios ranks networks
only for one unit of their gradients.
"""

import numpy as np

import erf

with np.load("data/openerf.npz") as archive:
    fields = [erf.import_map(archive[name], title=name.split(".")[0]) for name in archive]

erf.plot(fields, layout="ranks")

# %%
# The area ratio itself, of the map times 1 and times a million.

from erf.measures import measure_map

for field in fields:
    one, million = (measure_map(scale * field["all"].mean, ["replknet20"])["replknet20"] for scale in (1, 1e6))
    print(f"{field.provenance.title:35} {one:6.1%} {million:6.1%}   r50 {field.measure('r50')}")
