"""
Your own network
================

Any module is measured as it is, at any layer that yields a map. Images are arrays of shape (C, H, W).
"""

import torch
from torch import nn

import erf

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 2, 5))
images = torch.randn(12, 3, 64, 64)
erf.layers(network, size=(64, 64))

# %%

field = erf.compute(network, images, layer="2", progress=False)
field.plot()

# %%
# Measures are printed with their intervals over images.

field.measure("r90"), field.measure("inside_field")
