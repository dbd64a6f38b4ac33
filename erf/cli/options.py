"""Options shared by several commands, with their help texts."""

from typing import Annotated

import typer

LARGEST_SEED = 2**63 - 2
"""Largest seed for which PyTorch and HDF5 can also represent the next one."""

Labels = Annotated[str, typer.Option(help="One per file, with commas; default: the models' names.")]
Resamples = Annotated[int, typer.Option(help="Draws of permutations and of the bootstrap.")]
SeedOfDraws = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the draws.")]
ByImage = Annotated[
    bool, typer.Option("--by-image", help="Take images for independent, even where patients are known.")
]
AllowDifferent = Annotated[
    bool, typer.Option("--allow-different", help="Compare files that were measured differently.")
]
