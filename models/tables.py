"""Parameter and operation counts printed in the papers, compared with ours.

Papers: Li et al. ICME 2020 (SRB), Tables 1 and 3; Taha et al. MICCAI 2022 (HCT), Table 3. The printed numbers are
theirs; ours are counted when a table is requested. The magnification paper prints no counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import nn

from .counts import Count, count
from .creation import create_model, model_card
from .errors import ModelError
from .layers.global_blocks import DoubleAttentionBlock, NonLocalBlock
from .layers.spectral import FourierBlock, OrthogonalBlock

CHANNELS, SIZE = 128, (64, 64)
"""Channels and size of the map before up4 of U-Net* at 512x512, the only one that fits the parameters of Table 3."""


@dataclass(frozen=True)
class TableRow:
    """One number printed in a paper, and our count."""

    what: str
    quantity: str
    unit: str
    ours: float
    printed: str
    rule: str = ""

    @property
    def difference(self) -> float:
        return self.ours - float(self.printed)

    @property
    def digits(self) -> int:
        """Number of decimals that the paper prints."""
        return len(self.printed.partition(".")[2])

    @property
    def agrees(self) -> bool:
        """Whether our count, rounded to as many decimals, equals the printed number."""
        return f"{self.ours:.{self.digits}f}" == self.printed


_NETWORKS = {
    "srb": {
        "pspnet": "68.06",
        "deeplabv3": "39.76",
        "danet": "49.49",
        "unet": "1.943",
        "unet-srb-f": "2.076",
        "spm": "29.59",
        "spm-srb-f": "31.70",
    },
    "hct": {"gmic": "2.80", "def-gmic": "2.89", "hct-nystrom": "1.73", "hct-softmax": "1.73", "hct": "1.73"},
}

TABLES = tuple(_NETWORKS)

_ADDED = "convolutions, attention products, batch norm"

_BLOCKS: dict[str, tuple[Callable[[], nn.Module], str, str, str, Callable[[Count], int]]] = {
    "SRB_F": (
        lambda: FourierBlock(CHANNELS, SIZE),
        "8.704",
        "0.028",
        "convolutions, N log2 N per Fourier transform",
        lambda n: n.multiply_adds,
    ),
    "SRB_A": (
        lambda: OrthogonalBlock(CHANNELS, SIZE),
        "8.448",
        "0.031",
        "convolutions; not the products with P and Q",
        lambda n: n.convolutions,
    ),
    "Non-local": (
        lambda: NonLocalBlock(CHANNELS),
        "33.02",
        "2.126",
        _ADDED,
        lambda n: n.multiply_adds + n.norms,
    ),
    "A2": (
        lambda: DoubleAttentionBlock(CHANNELS),
        "16.64",
        "0.071",
        _ADDED,
        lambda n: n.multiply_adds + n.norms,
    ),
}


def network_rows(table: str) -> Iterator[tuple[TableRow, Count]]:
    """Yield the parameters of the networks in a paper's table, in its order, and their full counts.

    Raises:
        ModelError: `table` is not one of `TABLES`.
    """
    if table not in _NETWORKS:
        raise ModelError(f"no table '{table}'; expected one of {', '.join(TABLES)}")
    for name, printed in _NETWORKS[table].items():
        card = model_card(name)
        counted = count(partial(create_model, name), (card.in_channels, *card.input_size))
        yield TableRow(name, "parameters", "M", counted.parameters / 1e6, printed, "all"), counted


def block_rows() -> Iterator[tuple[TableRow, Count]]:
    """Yield the parameters and multiply-adds of the blocks in the SRB paper's Table 3, and their full counts."""
    for name, (build, thousands, giga, rule, multiply_adds) in _BLOCKS.items():
        counted = count(build, (CHANNELS, *SIZE))
        parameters = counted.conv_and_norm_parameters / 1e3
        yield TableRow(name, "parameters", "K", parameters, thousands, "convolutions and batch norm"), counted
        yield TableRow(name, "multiply-adds", "2^30", multiply_adds(counted) / 2**30, giga, rule), counted
