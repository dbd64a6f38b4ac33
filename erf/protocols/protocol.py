"""A protocol: everything that makes a published figure, read from a file of TOML."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erf.errors import InputError

if TYPE_CHECKING:
    from erf.results import ERF

_FOLDER = Path(__file__).parent
_LARGEST = 2**16
"""Largest size of a protocol's file, in bytes."""
_ARGUMENT_OF = {"normalise": "normalisation"}
_OPTION_OF = {argument: option for option, argument in _ARGUMENT_OF.items()}
"""Names of options and arguments, where they differ."""
_TABLES = ("compute", "plot", "compare")


@dataclass(frozen=True)
class Protocol:
    """Settings of a published figure, and what is known to be wrong with its number.

    Example:
        >>> import erf
        >>> replknet = erf.load_protocol("replknet")
        >>> replknet.compute["fit"], replknet.compute["activation"], replknet.plot["scale"]
        ('squash', 'relu', 'log1p')
    """

    name: str
    summary: str
    paper: str
    source: str = ""
    """Where the procedure was read."""
    defects: tuple[str, ...] = ()
    """What its numbers and pictures do not show, or show wrongly."""
    notes: tuple[str, ...] = ()
    compute: Mapping[str, Any] = field(default_factory=dict)
    """Options of the computation by the long names of the command line."""
    plot: Mapping[str, Any] = field(default_factory=dict)
    """Options of plots."""
    compare: Mapping[str, Any] = field(default_factory=dict)
    """Options of comparisons."""

    def run(self, model: Any, images: Any = "phantom", **given: Any) -> "ERF":
        """Compute an ERF as `erf.compute` does, with the protocol's settings.

        Args:
            model: network, as for `erf.compute`.
            images: images, as for `erf.compute`.
            **given: arguments of `erf.compute`; they win, and are recorded as deviations.
        """
        import erf

        own, changed = self.arguments(), {_OPTION_OF.get(name, name): value for name, value in given.items()}
        if hasattr(model, "size"):  # a network that is built
            changed["size"] = model.size
            own.pop("size", None)
        if not isinstance(images, str | Path):  # images in memory
            changed["size"] = tuple(getattr(images, "shape", None) or np.shape(images[0]))[-2:]
            own = {name: value for name, value in own.items() if name not in ("size", "fit", "interpolation")}
        facts = {"protocol": self.name, "deviations": self.deviations(changed)}
        return erf.compute(model, images, origin=facts, **own | given)

    def arguments(self) -> dict[str, Any]:
        """Return the settings as arguments of `erf.compute`."""
        found = {_ARGUMENT_OF.get(name, name): value for name, value in self.compute.items()}
        if "size" in found:
            height, _, width = str(found["size"]).partition("x")
            found["size"] = (int(height), int(width))
        if "definitions" in found:
            found["definitions"] = tuple(found["definitions"].split(","))
        return found

    def deviations(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        """List the options that differ from the protocol's.

        Args:
            given: options of the computation by name.
        """
        texts = {name: _text(name, value) for name, value in given.items() if name in self.compute}
        return tuple(
            f"{name} {text} instead of {self.compute[name]}"
            for name, text in texts.items()
            if text != str(self.compute[name])
        )


def _text(name: str, value: Any) -> str:
    """Write the value of an argument as the option of the command line."""
    if isinstance(value, list | tuple):
        return ("x" if name == "size" else ",").join(map(str, value))
    return str(value)


def list_protocols() -> list[str]:
    """List the names of the protocols that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@cache
def load_protocol(name: str) -> Protocol:
    """Read a protocol.

    Args:
        name: one of `list_protocols()`, or the path of a `.toml` file of the same form.

    Raises:
        InputError: there is no such protocol, or its file is not understood.
    """
    known = list_protocols()
    path = _FOLDER / f"{name}.toml" if name in known else Path(name)
    if name not in known and path.suffix != ".toml":
        near = difflib.get_close_matches(name, known, n=1) or known
        raise InputError(f"protocol '{name}' not known; expected {', '.join(near)}, or a file.toml")
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: larger than {_LARGEST} bytes; expected a protocol")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return _made(path.stem, values)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {error}; expected a protocol as in docs/protocols.md") from error


def _made(name: str, values: Mapping[str, Any]) -> Protocol:
    for table in _TABLES:
        if not isinstance(values.get(table, {}), dict):
            raise TypeError(f"{table} is no table")
    texts: dict[str, Any] = {key: value for key, value in values.items() if key not in (*_TABLES, "defects", "notes")}
    if wrong := [key for key, value in texts.items() if not isinstance(value, str)]:
        raise TypeError(f"{wrong[0]} is no text")
    lists = {key: tuple(map(str, values.get(key, ()))) for key in ("defects", "notes")}
    tables = {table: values.get(table, {}) for table in _TABLES}
    return Protocol(name, **(texts | lists | tables))
