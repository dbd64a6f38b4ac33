"""Options shared by several commands: each is declared once, with its help text and its panel."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.protocols import apply_protocol

LARGEST_SEED = 2**63 - 2
"""Largest seed for which PyTorch and HDF5 can also represent the next one."""

NETWORK, IMAGES, GRADIENT, TRAINING, EVALUATION, RUN, OUTPUT, PRIVACY = (
    "Network",
    "Images",
    "Unit and gradient",
    "Training",
    "Evaluation",
    "Computation",
    "Output",
    "Privacy",
)
"""Panels of the help pages."""

# Networks

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name that `erf models` lists, or timm:NAME, torchvision:NAME, smp:ARCHITECTURE:ENCODER, "
        "hf:FOLDER_OR_TYPE, monai:NAME, "
        "package.module:factory, file.py:factory, file.pt2.",
        rich_help_panel=NETWORK,
    ),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        help="Option of the network as NAME=VALUE, such as `alpha=1`; can be given several times.",
        rich_help_panel=NETWORK,
        metavar="NAME=VALUE",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="Weights file (safetensors or a saved state dict), `none` for an untrained network, `shipped` for those "
        "that come with the package (the default of gmic, def-gmic and hct), or `timm:TAG`, which timm downloads.",
        rich_help_panel=NETWORK,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Open an archive `file.pt2`, which is code and can do anything: only from a source that you trust.",
        rich_help_panel=NETWORK,
    ),
]
Size = Annotated[
    str, typer.Option(help="Input size HEIGHTxWIDTH in pixels; default: the network's own.", rich_help_panel=NETWORK)
]
Depth = Annotated[
    int, typer.Option(min=0, help="Slices of a volume, for a network of 3-D convolutions.", rich_help_panel=NETWORK)
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=LARGEST_SEED, help="Seed of untrained weights and of all other random numbers.", rich_help_panel=RUN
    ),
]
LayerName = Annotated[str, typer.Option(help="Name of the layer; default: the network's last map of several units.")]
UnitName = Annotated[str, typer.Option(help="`center`, `y,x` in the layer's map, or `pixel:y,x`.")]

# Images

ImageSource = Annotated[
    str,
    typer.Option(
        help="A folder, a manifest CSV, or `phantom` for generated mammograms.",
        rich_help_panel=IMAGES,
        metavar="SOURCE",
    ),
]
ImageSeed = Annotated[
    int,
    typer.Option(
        min=0, max=LARGEST_SEED, help="Seed of the selection of images, and of phantoms.", rich_help_panel=IMAGES
    ),
]
Normalise = Annotated[
    str,
    typer.Option(
        help="`standardise`, `imagenet`, `unit`, `none`, MEAN/STD as `0.5/0.25`, or `auto`, from the configuration of "
        "timm, torchvision or Hugging Face; default: the network's own.",
        rich_help_panel=IMAGES,
    ),
]
FitName = Annotated[
    str,
    typer.Option(
        "--fit",
        help="How images get the input size: `pad` or crop without scaling, `letterbox`, `squash`, `crop`, or "
        "`crop:0.875` for the middle of a larger one; default: the network's own, `pad` for mammograms.",
        rich_help_panel=IMAGES,
    ),
]
Interpolation = Annotated[
    str,
    typer.Option(
        help="Filter of --fit: `nearest`, `bilinear`, `bicubic`, `lanczos`, `box`, `hamming`; default: the network's "
        "own.",
        rich_help_panel=IMAGES,
    ),
]
AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside", help="Allow paths of a manifest that lead out of its folder.", rich_help_panel=IMAGES
    ),
]
Examples = Annotated[
    int, typer.Option("-n", min=0, help="Images; default: all, or 200 phantoms.", rich_help_panel=IMAGES)
]
Classes = Annotated[
    str,
    typer.Option(
        help="Labels in the order of the network's outputs; of two, the second is positive.", rich_help_panel=IMAGES
    ),
]

ProtocolName = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="Settings of a published figure, which `erf protocols` lists; other options win, and are recorded.",
        callback=apply_protocol,
        is_eager=True,
        rich_help_panel=GRADIENT,
    ),
]

# Computation

Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.", rich_help_panel=RUN)]
Workers = Annotated[int, typer.Option(min=0, help="Threads that prepare images ahead.", rich_help_panel=RUN)]

# Output and privacy

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=OUTPUT)]
Salt = Annotated[
    str,
    typer.Option(
        help="Secret text for the hashes: files with the same one can be compared image by image. Default: drawn at "
        "random and not kept.",
        rich_help_panel=PRIVACY,
        envvar="ERF_SALT",
    ),
]
Keep = Annotated[
    str, typer.Option(help="Columns of the manifest to keep, separated by commas.", rich_help_panel=PRIVACY)
]
Thumbnails = Annotated[
    bool, typer.Option("--thumbnails", help="Keep thumbnails of the images.", rich_help_panel=PRIVACY)
]

# ERF files

ErfFiles = Annotated[list[Path], typer.Argument(help="ERF files; differences are to the first.")]
Labels = Annotated[str, typer.Option(help="One label per file, separated by commas; default: the models' names.")]
Resamples = Annotated[int, typer.Option(help="Number of permutations and of bootstrap samples.")]
SeedOfDraws = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of permutations and bootstrap samples.")]
ByImage = Annotated[
    bool, typer.Option("--by-image", help="Treat images as independent, even where patients are known.")
]
AllowDifferent = Annotated[
    bool, typer.Option("--allow-different", help="Compare files that were measured with different settings.")
]
