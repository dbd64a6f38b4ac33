"""
Photographs
===========

The field of a single image depends on its content. Two photographs of scikit-learn go through a ResNet-18 of timm,
which is not trained.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_images

import erf

photographs = torch.stack([torch.tensor(photo) for photo in load_sample_images().images]).permute(0, 3, 1, 2)
crops = (
    photographs[:, :, 100:324, 200:424] / 255
)  # the mean and deviation that the network expects are applied to these
fields = [erf.compute("timm:resnet18", [crop], layer="layer3", weights="none", progress=False) for crop in crops]

figure, axes = plt.subplots(2, 2, figsize=(6, 6), layout="constrained")
for row, crop, result in zip(axes, crops, fields, strict=True):
    field = result["all"].mean
    row[0].imshow(crop.permute(1, 2, 0))
    row[1].imshow((field / field.max()) ** 0.5, cmap="magma")
axes[0, 0].set_title("image")
axes[0, 1].set_title("root of its field")
