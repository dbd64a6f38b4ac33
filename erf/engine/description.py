"""Description of a run: what its provenance records, and nothing that steers it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import isfinite
from platform import python_version

import torch

from erf.box import Box
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.gradients.units import CENTER
from erf.images import ImageSet
from erf.results import Origin, Provenance
from erf.results.grid import small_block

_PACKAGES = ("erf-toolkit", "torch", "numpy", "h5py", "performer-pytorch", "captum", "timm")


@dataclass(frozen=True)
class RunDescription:
    """Facts about a run that hold for all of its measured units."""

    origin: Origin
    images: ImageSet
    settings: Settings
    device: torch.device
    eval_mode: str
    """Modules that behave differently in training."""
    is_random: bool
    """Whether the network or the method draws random numbers."""
    parameters: int
    """Number of parameters of the network."""
    precision_error: float
    """Error of the gradient on noise, relative to full precision."""

    def of(self, unit: MeasuredUnit, box: Box[int], self_check: Mapping[str, str]) -> Provenance:
        """Return the provenance of a measured unit.

        Args:
            unit: the measured unit.
            box: region of the image that its gradients cover.
            self_check: record of the self-check.
        """
        traced, settings, framing = unit.trace, self.settings, self.images.framing
        return Provenance(
            **vars(self.origin),
            seed=settings.seed,
            layer=unit.layer,
            unit=unit.unit,
            units="" if settings.unit == CENTER or not isinstance(settings.unit, str) else settings.unit,
            aligned=settings.moves,
            channel=str(settings.channel),
            activation=settings.activation,
            method=settings.method,
            method_options=dict(settings.method_options or {}),
            layout=traced.layout.description,
            inputs=settings.arguments.names,
            slices=settings.arguments.depth,
            eval_mode=self.eval_mode,
            random=self.is_random,
            unit_center=_plane(unit.center),
            input_shape=self.images.shape,
            feature_shape=traced.feature_shape,
            field_size=_plane(tuple(high - low for low, high in unit.seen), 1.0),
            field_shift=_plane(tuple(_middle(*ends) for ends in unit.seen)),
            field_stride=_plane(traced.field.stride, 1.0),
            parameters=self.parameters,
            depth=traced.depth,
            crop=box,
            self_check=self_check,
            field_kind=traced.field.kind,
            definitions=settings.definitions,
            normalisation=framing.normalisation,
            fit=framing.fit,
            interpolation=framing.interpolation,
            mirrored=framing.mirror,
            projections=settings.projections,
            precision=settings.precision,
            precision_error=self.precision_error,
            shard=self.images.part,
            small_block=small_block(framing.size),
            finest_block=1,
            device=_device_name(self.device),
            deterministic=settings.deterministic,
            versions=versions(_PACKAGES),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _plane(values: tuple[float, ...], of_row: float = 0.0) -> tuple[float, float]:
    """Return the values along (y, x); a signal has one row, whose value is `of_row`."""
    return (values[-2], values[-1]) if len(values) > 1 else (of_row, values[0])


def _middle(low: float, high: float) -> float:
    return (low + high) / 2 if isfinite(high - low) else 0.0


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of packages by name."""
    return {"python": python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
