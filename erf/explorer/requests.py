"""Requests of the page, read with care: whatever they contain, there is a place or one clear error."""

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from erf.definitions import DEFINITIONS
from erf.errors import InputError
from erf.explorer.arrays import LEVELS
from erf.explorer.field import Place
from erf.text import one_line

_LARGEST = 64 * 1024
_FARTHEST = 1e6


async def read_json(request: Request) -> Mapping[str, Any]:
    """Return the JSON object of a request; raises `InputError` for anything else."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LARGEST:
            raise InputError(f"a request of more than {_LARGEST} bytes")
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise InputError("expected a request with the content type application/json")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("expected a JSON object")
    return found


def read_place(given: Mapping[str, Any]) -> Place:
    """Return the place that a request names; raises `InputError` if it names none."""
    pixel = unit = None
    if given.get("unit") is not None:
        unit = tuple(_whole("unit", index) for index in _list("unit", given["unit"]))
    else:
        pixel = (_number("y", given.get("y")), _number("x", given.get("x")))
    channel = given.get("channel", "all")
    if channel not in ("all", "signs"):
        channel = _whole("channel", channel)
    definition = given.get("definition", "abs")
    if definition not in DEFINITIONS:
        raise InputError(f"definition {_shown(definition)} not known; expected one of {', '.join(DEFINITIONS)}")
    layer = given.get("layer")
    if not isinstance(layer, str):
        raise InputError(f"layer {_shown(layer)}; expected a name")
    return Place(
        network=_whole("network", given.get("network", 0)),
        image=_whole("image", given.get("image", 0)),
        layer=one_line(layer[:500]),
        channel=channel,
        definition=definition,
        unit=unit,
        pixel=pixel,
        part=_whole("input", given.get("input", 0)),
    )


def read_client(given: Mapping[str, Any]) -> str:
    """Return the name by which a pane of the page tells its own requests from those of others."""
    client = given.get("client", "")
    if not isinstance(client, str) or len(client) > 100:
        raise InputError("client: expected a short text")
    return client


def number_of(request: Request, name: str, default: int | None = None) -> int:
    """Return a whole number from the path or the query of a request; raises `InputError` if there is none."""
    text = request.path_params.get(name, request.query_params.get(name))
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(f"{name} {_shown(text)}; expected a whole number")
    return int(text)


def level_of(request: Request) -> int:
    """Return the level of resolution that is asked for; raises `InputError` if there is none."""
    level = number_of(request, "level", 0)
    if level > LEVELS:
        raise InputError(f"level {level}; expected at most {LEVELS}")
    return level


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or abs(value) > _FARTHEST:
        raise InputError(f"{name} {_shown(value)}; expected a number of pixels")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _FARTHEST:
        raise InputError(f"{name} {_shown(value)}; expected a whole number")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 3:
        raise InputError(f"{name} {_shown(value)}; expected [y, x]")
    return value


def _shown(value: Any) -> str:
    return one_line(repr(value))[:60]
