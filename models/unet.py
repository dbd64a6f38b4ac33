"""U-Net, alone and with blocks that give it a global receptive field.

Papers: Ronneberger, Fischer, Brox. U-Net. MICCAI 2015 (arXiv 1505.04597), in the form that Li et al. (ICME 2020, doi
10.1109/ICME46284.2020.9102949) compare in Tables 1 to 3. No code of that paper is public.

Reconstruction from its 1.943 M parameters: 16 channels at full size, doubled at each of four poolings; two padded 3x3
convolutions without bias and with batch norm at each size; 2x2 transposed convolutions with bias; 1x1 convolution to
two classes: 1,942,594. With an SRB_F before each of the four up-samplings: 2,076,038 (printed 2.076 M).

Names: `up4` is the up-sampling closest to the encoder, as in the paper; `before-up4` is the place on the deepest map,
`after-up4` the place on the output of the two convolutions that follow up4.

U-Net* is "U-Net without the last max pooling". The parameters that Table 3 gives for blocks before its up4 fit only a
map of 128 channels, so the level of 256 channels is removed with its pooling: three poolings, and up4, up3 and up2
remain.

Choice: He initialisation of the convolutions; the paper does not specify it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ModelError
from .layers.global_blocks import DoubleAttentionBlock, NonLocalBlock
from .layers.residual import conv3x3, initialise
from .layers.spectral import FourierBlock, OrthogonalBlock
from .registry import ModelCard, register

SIZE = (512, 512)
DEEPEST = 4
"""Number of the up-sampling closest to the encoder."""

Block = Callable[[int, tuple[int, int]], nn.Module]
"""Builder of a block: (channels, (H, W) of the map) -> block."""


def _sizeless(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    """Wrap a block that takes maps of any size, so that it is built like those that belong to one size."""

    def make(channels: int, size: tuple[int, int], **options: Any) -> nn.Module:
        return kind(channels, **options)

    return make


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "srb-f": FourierBlock,
    "srb-a": OrthogonalBlock,
    "non-local": _sizeless(NonLocalBlock),
    "a2": _sizeless(DoubleAttentionBlock),
}


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, batch norm, ReLU; (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for number, (before, after) in enumerate(pairwise((in_channels, out_channels, out_channels)), start=1):
            self.add_module(f"conv{number}", conv3x3(before, after))
            self.add_module(f"norm{number}", nn.BatchNorm2d(after))
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))


class Up(nn.Module):
    """Up-sampling stage: doubles a map's size, halves its channels, joins the encoder's map, and convolves twice.

    (N, channels, h, w) and the encoder's map (N, channels/2, 2h, 2w) -> (N, channels/2, 2h, 2w)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.convs = DoubleConv(channels, channels // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, self.up(x)], dim=1))


class UNet(nn.Module):
    """U-Net; (N, in_channels, H, W) -> logits (N, classes, H, W).

    Args:
        in_channels: channels of the input.
        classes: channels of the output.
        poolings: 4, or 3 for U-Net*.
        block: kind of the added blocks, one of `BLOCKS`.
        places: places of the added blocks, such as 'before-up4', several separated by commas; or the number of places
            before an up-sampling, deepest first.
        size: (H, W) of the input in pixels, to which spectral blocks belong.
        base: channels at full size.
        options: passed to the blocks, such as `alpha` and `resize` of 'srb-f'.

    Raises:
        ModelError: unknown block or place. `forward` raises `ValueError` for a size not divisible by 2**poolings.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        poolings: int = 4,
        block: str = "srb-f",
        places: int | str | Sequence[str] = 0,
        size: tuple[int, int] = SIZE,
        base: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ModelError(f"unet: block '{block}' not known, expected one of {', '.join(BLOCKS)}")
        self.poolings = poolings
        widths = [base << level for level in range(poolings + 1)]
        self.pool = nn.MaxPool2d(2)
        for level, (before, after) in enumerate(pairwise([in_channels, *widths]), start=1):
            self.add_module(f"encoder{level}", DoubleConv(before, after))
        for level in range(poolings, 0, -1):
            self.add_module(f"up{self._number(level)}", Up(widths[level]))
        self.head = nn.Conv2d(base, classes, 1)
        initialise(self)
        levels = self._levels(places)
        make: Block = partial(BLOCKS[block], **options)
        self.blocks = nn.ModuleDict(
            {place: make(widths[level], (size[0] >> level, size[1] >> level)) for place, level in levels.items()}
        )

    def _number(self, level: int) -> int:
        """Return the number of the up-sampling that starts from a level; the deepest is always 4."""
        return DEEPEST - self.poolings + level

    def _levels(self, places: int | str | Sequence[str]) -> dict[str, int]:
        """Return the level of the map at each place."""
        numbered = [(self._number(level), level) for level in range(self.poolings, 0, -1)]
        known = {f"before-up{number}": level for number, level in numbered}
        if isinstance(places, int):
            if not 0 <= places <= len(known):
                raise ModelError(f"unet: {places} places, expected 0 to {len(known)}")
            places = list(known)[:places]
        known |= {f"after-up{number}": level - 1 for number, level in numbered}
        names = [name.strip() for name in places.split(",")] if isinstance(places, str) else places
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ModelError(f"unet: no place '{unknown[0]}', expected some of {', '.join(known)}")
        return {name: known[name] for name in names}

    def _block(self, place: str, x: Tensor) -> Tensor:
        return self.blocks[place](x) if place in self.blocks else x

    def forward(self, x: Tensor) -> Tensor:
        factor = 1 << self.poolings
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(f"expected height and width divisible by {factor}, found {x.shape[2]}x{x.shape[3]}")
        skips = []
        for level in range(1, self.poolings + 1):
            x = self.get_submodule(f"encoder{level}")(x)
            skips.append(x)
            x = self.pool(x)
        x = self.get_submodule(f"encoder{self.poolings + 1}")(x)
        for level in range(self.poolings, 0, -1):
            number = self._number(level)
            x = self._block(f"before-up{number}", x)
            x = self.get_submodule(f"up{number}")(x, skips.pop())
            x = self._block(f"after-up{number}", x)
        return self.head(x)


_ENCODER = tuple(f"encoder{level}" for level in range(1, 6))
_UPS = ("up4", "up3", "up2", "up1", "head")
_STAR_LAYERS = (*_ENCODER[:4], *_UPS[:3], "head")
_STAR = "U-Net* (three poolings)"

_VARIANTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "unet": ("U-Net with 16 channels at full size", {}, 1_942_594),
    "unet-srb-f": ("U-Net, SRB_F before each up-sampling", {"places": 4}, 2_076_038),
    "unet-srb-a": ("U-Net, SRB_A before each up-sampling", {"block": "srb-a", "places": 4}, 2_335_238),
    "unet-star": (_STAR, {"poolings": 3}, 482_754),
    "unet-star-srb-f": (f"{_STAR}, SRB_F before up4", {"poolings": 3, "places": 1}, 495_683),
    "unet-star-srb-a": (f"{_STAR}, SRB_A before up4", {"poolings": 3, "block": "srb-a", "places": 1}, 507_587),
    "unet-star-non-local": (
        f"{_STAR}, non-local block before up4",
        {"poolings": 3, "block": "non-local", "places": 1},
        515_778,
    ),
    "unet-star-a2": (f"{_STAR}, A2 block before up4", {"poolings": 3, "block": "a2", "places": 1}, 499_394),
}

for _name, (_summary, _options, _parameters) in _VARIANTS.items():
    register(
        ModelCard(
            name=_name,
            summary=_summary,
            paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
            build=partial(UNet, **_options),
            parameters=_parameters,
            layers=(*_ENCODER, *_UPS) if "star" not in _name else _STAR_LAYERS,
            in_channels=3,
            input_size=SIZE,
            default_layer="head",
            sized=True,
        )
    )
