"""
HCT over training
=================

A ``TrainingMonitor`` measures a network in training, after each epoch and on the same images. Here HCT, from random
weights, learns to tell left breasts from right ones: 32 generated mammograms are enough for that, and seconds.
``erf train --erf-every 1`` does the same for the recipes of the papers (`training <../training.html>`_).
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import erf
from erf.uncertainty import estimate

size = (416, 320)
measured = erf.load_images("phantom", n=8, seed=1, size=size)
folder = Path(tempfile.mkdtemp())


def load(n, seed):
    """Return images (N, 1, H, W), and 1 for left, 0 for right."""
    images = erf.load_images("phantom", n=n, seed=seed, size=size)
    pixels = [torch.tensor(images.sample(image).pixels) for image in images.images]
    return torch.stack(pixels).float(), torch.tensor([int(image.laterality == "left") for image in images.images])


def train(seed, epochs=4):
    """Train HCT and return its fields over the epochs."""
    network = erf.build_network("hct", size=size, weights="none", seed=seed)
    monitor = erf.TrainingMonitor(network, measured, folder / f"{seed}.h5")
    optimiser = torch.optim.Adam(network.model.parameters(), 6e-4)
    for epoch in range(epochs + 1):
        for batch in torch.randperm(len(images)).split(8) if epoch else []:  # epoch 0 is before training
            loss = torch.nn.functional.cross_entropy(network.model.train()(images[batch]), sides[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            correct = network.model.eval()(other_images).argmax(1) == other_sides
        scores = {"validation_accuracy": correct.float().mean().item()}
        monitor(network.model, {"epoch": epoch, "stage": "image" if epoch else "initial", **scores})
    return monitor.series()


images, sides = load(32, seed=0)
other_images, other_sides = load(16, seed=2)
torch.manual_seed(0)
runs = [train(seed) for seed in range(3)]

# %%
# ``lean`` is the shift of the centroid from left to right breasts. Before training it depends on the draw of weights;
# with training it grows, for each of three draws: the fields over left and over right breasts move apart.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharex=True)
for seed, series in enumerate(runs):
    observed = [series.observe(moment) for moment in series.moments]
    left.plot([estimate(each, [erf.MEASURES["lean"]])["lean"].value for each in observed], "o-", label=f"seed {seed}")
    right.plot([moment.scores["validation_accuracy"] for moment in series.moments], "o-")
left.set(xlabel="epoch", ylabel="lean [px]", xticks=range(5), title="left–right shift of the field")
right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.05), title="left or right, 16 other phantoms")
left.legend()

# %%
# The maps of seed 0. Three draws, one easy task and phantoms of reduced size: this shows how to look, not
# what training does to HCT. With lesions and at full size, the field changes in another way
# (`the receptive field over training <../training.html#the-receptive-field-over-training>`_).

erf.plot_series(runs[0], subsets=["left", "right"])
