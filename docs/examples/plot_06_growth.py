"""
Growth over the layers of a network
===================================

All layers are measured in one pass over the images. The theoretical field grows much faster than the radius that holds
half of the mass.
"""

import matplotlib.pyplot as plt

import erf

network = erf.build_network("gmic", size=(832, 640))
images = erf.load_images("phantom", n=4, size=(832, 640))
layers = ["stem", "stage1", "stage2", "stage3", "stage4", "stage5"]
results = erf.compute_layers(network.model, images, layers)

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
axis.semilogy(layers, [result.provenance.field_size[0] for result in results], "s-", label="theoretical field, side")
axis.semilogy(layers, [2 * result.measure("r90").value for result in results], "^-", label="diameter with 90 %")
axis.semilogy(layers, [2 * result.measure("r50").value for result in results], "o-", label="diameter with 50 %")
axis.set(ylabel="pixels", title="GMIC")
axis.legend()
