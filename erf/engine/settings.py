"""Settings of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS, shown_definition
from erf.errors import InputError
from erf.gradients.autograd import ACTIVATIONS, EDGES
from erf.gradients.methods import METHODS
from erf.gradients.units import CENTER, MaskChoice, UnitChoice, is_by_image, window_of
from erf.network.inputs import Arguments
from erf.text import as_names

if TYPE_CHECKING:
    from erf.uncertainty import StoppingRule

PRECISIONS = ("float32", "bfloat16")

ALL_CHANNELS, SIGNS = "all", "signs"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run of `compute_layers`; the arguments of `compute` with the same names explain them.

    Example:
        >>> import erf
        >>> erf.Settings(unit="grid:2x2", definitions=("abs", "square"), device="cpu").shown_definition
        'abs'
    """

    unit: UnitChoice = CENTER
    channel: int | str = ALL_CHANNELS
    aligned: bool = False
    activation: str = "none"
    method: str = "gradient"
    method_options: Mapping[str, Any] | None = None
    arguments: Arguments = Arguments()  # noqa: RUF009 (frozen)
    definitions: tuple[str, ...] = (DEFAULT_DEFINITION,)
    subset_by: tuple[str, ...] = ()
    projections: int = 1
    seed: int = 0
    precision: str = "float32"
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    deterministic: bool = False
    strict: bool = False
    until: "StoppingRule | None" = None
    crop: bool = True
    self_check: bool = True
    allow_rounding: bool = False

    def __post_init__(self) -> None:
        for name in ("definitions", "subset_by"):  # a single name need not be in a tuple
            object.__setattr__(self, name, as_names(getattr(self, name)))
        unknown = [name for name in self.definitions if name not in DEFINITIONS]
        if unknown or not self.definitions:
            found = ", ".join(unknown) or "none"
            raise InputError(f"definitions: found {found}; expected some of {', '.join(DEFINITIONS)}")
        for name in ("definitions", "subset_by"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise InputError(f"{name.replace('_', ' ')}: found {', '.join(given)}; expected each once")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size}; expected at least 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}' not known; expected one of {', '.join(PRECISIONS)}")
        if self.method not in METHODS:
            raise InputError(f"method '{self.method}' not known; expected one of {', '.join(METHODS)}")
        if isinstance(self.channel, str) and self.channel not in (ALL_CHANNELS, SIGNS):
            raise InputError(f"channel '{self.channel}' not understood; expected all, signs or a number")
        if self.channel == SIGNS and self.definitions != ("square",):
            raise InputError(
                f"random signs with definitions {', '.join(self.definitions)}; they estimate the sum of squares over "
                "channels",
                remedy="ask for `definitions` square",
            )
        self._check_activation()
        if MaskChoice.parse(self.unit) and self.projections > 1:
            raise InputError("an average over units and over draws of projections; expected one of them")
        if self.moves and (self.arguments.depth or self.arguments.signal):
            raise InputError("maps of volumes and signals cannot be aligned on a unit; choose one unit for all images")

    def _check_activation(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation '{self.activation}' not known; expected one of {', '.join(ACTIVATIONS)}")
        if self.activation == "softmax" and self.channel == ALL_CHANNELS:
            raise InputError("all probabilities of a softmax sum to 1", remedy="choose one `channel`")
        if self.window and self.moves:
            raise InputError("a window of units cannot be aligned; choose single units")
        if self.activation == EDGES and not self.window:
            raise InputError("edges of a single unit; choose a window of units as `unit`, such as window:16x16")

    @property
    def window(self) -> tuple[int, ...]:
        """Lengths of the window of units whose values are summed; () for single units."""
        return window_of(self.unit)

    @property
    def shown_definition(self) -> str:
        """The definition that tables and pictures show by default."""
        return shown_definition(self.definitions)

    @property
    def moves(self) -> bool:
        """Whether maps are shifted so that their units coincide, on the centre unit of the layer's map."""
        return self.aligned or is_by_image(self.unit)
