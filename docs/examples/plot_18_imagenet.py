"""
Ten networks trained on ImageNet
================================

The maps were computed by OpenERF (MIT licence, see the folder ``data``) from networks of timm with ImageNet weights.
``erf.import_map`` makes receptive fields of them, which are drawn and measured like any other. Of 14 x 14 tokens,
OpenERF differentiates the one left above the middle, whose centre is half a patch away from it; Swin has 7 x 7 units,
of which one is in the middle.
"""

import numpy as np

import erf

with np.load("data/openerf.npz") as archive:
    maps = {name.split(".")[0]: archive[name] for name in archive if archive[name].shape == (224, 224)}

centers = {name: (111.5, 111.5) if "swin" in name else (103.5, 103.5) for name in maps}
fields = [erf.import_map(values, title=name, center=centers[name]) for name, values in maps.items()]
erf.plot(fields[:4], scale="power:0.25", clip=(1, 99.5), joint_scale=True)

# %%
# The curves show how much of the mass lies within a distance of the unit. There are no intervals: a map without its
# images has none.

erf.plot(fields, layout="radial")
