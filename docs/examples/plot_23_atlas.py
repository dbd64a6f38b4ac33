"""
Many networks in one page
=========================

``erf atlas`` shows many networks in a page that sorts and filters by itself and works offline. It takes names, patterns
such as ``timm:resnet*``, ERF files, and maps of other programs: here two untrained networks over generated images, and
the ten maps of networks with ImageNet weights that OpenERF computed (MIT licence, see the folder ``data``).
"""

import tempfile

import erf

names = ["mobilenetv3-small-050", "vit-tiny", "data/openerf.npz"]
folder = tempfile.mkdtemp()
made = erf.atlas(names, folder, n=4, size=(128, 128), scale="power:0.25", joint_scale=True)
made

# %%
# Of a map without its images there is no interval, and the four generated images are those of a single patient. The
# table beside the page has every number at full precision.

for entry in made.entries[:4]:
    print(f"{entry.label:42} {entry.kind:9} r50 {entry.estimates['r50']}")
