"""A protocol: everything that makes a published figure, read from a file of TOML."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erf.errors import InputError

if TYPE_CHECKING:
    from erf.results import ERF

_FOLDER = Path(__file__).parent
_LARGEST = 2**16
"""Largest size of a protocol's file, in bytes."""
_ARGUMENT_OF = {"normalise": "normalisation", "method_arg": "method_options"}
_OPTION_OF = {argument: option for option, argument in _ARGUMENT_OF.items()}
"""Names of options and arguments, where they differ."""
_OPTIONS = {
    "compute": (
        *("size", "n", "image_seed", "seed", "normalise", "fit", "interpolation", "layer", "unit", "channel"),
        *("activation", "method", "definitions", "projections", "precision"),
    ),
    "plot": ("definition", "subsets", "scale", "colors", "clip", "joint_scale", "shares", "layout"),
    "compare": ("definition", "subset", "measures", "level", "resamples", "interval", "seed", "mm", "by_image"),
}
"""Options that a protocol may set: none that names a file, replaces one, or trusts code."""
_DEFAULTS = {
    "aligned": False, "lesions": 0, "method_arg": "none", "mirror": False, "precision": "float32", "projections": 1,
}  # fmt: skip
"""Options that change every map and that protocols leave alone; given beside one, they are deviations."""
_KINDS: dict[type, str] = {str: "text", list: "list", dict: "table"}
_OF_IMAGES = ("normalisation", "fit", "interpolation")


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
            changed |= {"size": tuple(getattr(images, "shape", None) or np.shape(images[0]))[-2:], "n": len(images)}
            own = {name: value for name, value in own.items() if name not in ("size", "fit", "interpolation")}
        if framing := getattr(images, "framing", None):  # a set of images, whose own preprocessing holds
            own.pop("normalisation", None)
            changed |= {_OPTION_OF.get(name, name): getattr(framing, name) for name in _OF_IMAGES}
        facts = {"protocol": self.name, "deviations": self.deviations(changed)}
        return erf.compute(model, images, origin=facts, **own | given)

    def arguments(self) -> dict[str, Any]:
        """Return the settings as arguments of `erf.compute`."""
        found = {_ARGUMENT_OF.get(name, name): value for name, value in self.compute.items()}
        if "size" in found:
            height, _, width = found["size"].partition("x")
            found["size"] = (int(height), int(width))
        if "definitions" in found:
            found["definitions"] = tuple(found["definitions"].split(","))
        if str(found.get("channel", "")).isdecimal():
            found["channel"] = int(found["channel"])
        return found

    def deviations(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        """List the options that differ from the protocol's.

        Args:
            given: options of the computation by name.
        """
        expected = {name: _text(name, value) for name, value in {**_DEFAULTS, **self.compute}.items()}
        texts = {name: _text(name, value) for name, value in given.items() if name in expected and value is not None}
        return tuple(
            f"{name} {text} instead of {expected[name]}" for name, text in texts.items() if text != expected[name]
        )


def _text(name: str, value: Any) -> str:
    """Write the value of an argument as the option of the command line."""
    if isinstance(value, Mapping):
        value = [f"{key}={each}" for key, each in value.items()]
    if name == "size" and isinstance(value, int):
        value = (value, value)
    if isinstance(value, list | tuple):
        return ("x" if name == "size" else ",").join(map(str, value))
    return str(value)


def list_protocols() -> list[str]:
    """List the names of the protocols that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_protocol(name: str) -> Protocol:
    """Read a protocol.

    Args:
        name: one of `list_protocols()`, or the path of a `.toml` file of the same form.

    Raises:
        InputError: there is no such protocol, or its file is not understood.
    """
    known = list_protocols()
    is_known = name in known
    path = _FOLDER / f"{name}.toml" if is_known else Path(name)
    if not is_known and path.suffix != ".toml":
        near = difflib.get_close_matches(name, known, n=1) or known
        raise InputError(f"protocol '{name}' not known; expected {', '.join(near)}, or a file.toml")
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise ValueError("no file")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"larger than {_LARGEST} bytes")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return _made(name if is_known else path.name, values)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}; expected a protocol as in docs/protocols.md") from error


def _made(name: str, values: Mapping[str, Any]) -> Protocol:
    """Check the content of a file; raise `ValueError` for what is no protocol."""
    texts, lists = dict.fromkeys(("summary", "paper", "source"), str), dict.fromkeys(("defects", "notes"), list)
    known: dict[str, type] = {**texts, **lists, **dict.fromkeys(_OPTIONS, dict)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"'{key}' not known; expected {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise ValueError(f"{key} is no {_KINDS[known[key]]}")
    if missing := [key for key in ("summary", "paper") if key not in values]:
        raise ValueError(f"no {missing[0]}")
    tables = {table: values.get(table, {}) for table in _OPTIONS}
    for table, options in tables.items():
        _check_options(table, options)
    words = {key: values[key] for key in texts if key in values}
    remarks = {key: tuple(map(str, values.get(key, ()))) for key in lists}
    return Protocol(name, **(words | remarks | tables))


def _check_options(table: str, options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if option not in _OPTIONS[table]:
            raise ValueError(f"{table} has '{option}', which no protocol sets; expected {', '.join(_OPTIONS[table])}")
        if not isinstance(value, str | int | float):
            raise ValueError(f"{option} is {value}; expected a text or a number")
    size = options.get("size", "1x1")
    if not (isinstance(size, str) and re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", size, re.ASCII)):
        raise ValueError(f"size is {size}; expected HEIGHTxWIDTH")
    if "definitions" in options and not isinstance(options["definitions"], str):
        raise ValueError(f"definitions is {options['definitions']}; expected a text")
