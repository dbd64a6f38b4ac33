"""Web application of the explorer: routes to one session."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from erf.errors import ErfError, InputError
from erf.explorer.arrays import Encoded, encode_image, encode_map
from erf.explorer.exports import FORMATS, export_field
from erf.explorer.field import Field
from erf.explorer.numbers import field_numbers, file_numbers, image_numbers
from erf.explorer.reproduce import command_of, python_of
from erf.explorer.requests import level_of, number_of, read_client, read_json, read_place
from erf.explorer.session import Session
from erf.explorer.worker import BusyError, SupersededError
from erf.gradients.graph import Cancelled, CancelledError
from erf.text import one_line

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Endpoint = Callable[["Routes", Request], Awaitable[Response]]
Handler = Callable[["Routes", Request], Awaitable[Response]]


def _reported(endpoint: Endpoint) -> Handler:
    """Decorate an endpoint so that its errors become one line of JSON, and the server lives on."""

    @wraps(endpoint)
    async def handler(self: "Routes", request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except (SupersededError, CancelledError):
            return _error(409, "a newer request has replaced this one")
        except BusyError:
            return _error(503, "too many requests wait; try again")
        except ErfError as error:
            return _error(422, str(error))
        except Exception as error:  # a network's own code may raise anything
            reason = (str(error).strip() or "failed").splitlines()[0]
            return _error(500, f"{type(error).__name__}: {reason[:200]}")

    return handler


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    # Characters beyond ASCII are escaped: a path may hold bytes that are no UTF-8.
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


def _error(status: int, words: str) -> Response:
    return _json({"error": one_line(words)}, status)


def _bytes(encoded: Encoded) -> Response:
    return Response(encoded.content, headers=dict(encoded.headers), media_type="application/octet-stream")


class Routes:
    """Endpoints of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.page = {
            part.name: part.read_bytes()
            for part in files("erf.explorer").joinpath("page").iterdir()
            if any(part.name.endswith(suffix) for suffix in _TYPES)
        }

    def app(self) -> Starlette:
        """Return the application."""
        get, post = ["GET"], ["POST"]
        return Starlette(
            routes=[
                Route("/", self.index, methods=get),
                Route("/api/state", self.state, methods=get),
                Route("/api/images/{image}/thumbnail", self.thumbnail, methods=get),
                Route("/api/images/{image}/pixels", self.pixels, methods=get),
                Route("/api/fields", self.add_field, methods=post),
                Route("/api/projective", self.add_projective, methods=post),
                Route("/api/fields/{field}/map", self.map, methods=get),
                Route("/api/fields/{field}/map.npy", self.map_npy, methods=get),
                Route("/api/fields/{field}/numbers", self.numbers, methods=get),
                Route("/api/fields/{field}/keep", self.keep, methods=post),
                Route("/api/fields/{field}/reproduce", self.reproduce, methods=get),
                Route("/api/fields/{field}/export", self.export, methods=get),
                Route("/api/files/{file}/map", self.file_map, methods=get),
                Route("/api/files/{file}/background", self.background, methods=get),
                Route("/api/files/{file}/numbers", self.file_numbers, methods=get),
                Route("/{name}", self.part_of_page, methods=get),
            ]
        )

    async def index(self, _request: Request) -> Response:
        """Return the page."""
        return Response(self.page["index.html"], media_type=_TYPES[".html"])

    async def part_of_page(self, request: Request) -> Response:
        """Return a script or style of the page, by name, from memory."""
        name = request.path_params["name"]
        if name not in self.page:
            return _error(404, "no such page")
        suffix = name[name.rindex(".") :]
        return Response(self.page[name], media_type=_TYPES[suffix])

    @_reported
    async def state(self, _request: Request) -> Response:
        """Return networks, images and files."""
        return _json(await self._computed(lambda _: self.session.description))

    @_reported
    async def thumbnail(self, request: Request) -> Response:
        """Return a small picture of an image as PNG."""
        subject, image = self.session.subject(number_of(request, "network", 0)), number_of(request, "image")
        pixels = await asyncio.to_thread(subject.pictures.thumbnail, image)
        return Response(await asyncio.to_thread(_png, pixels), media_type="image/png")

    @_reported
    async def pixels(self, request: Request) -> Response:
        """Return an image in 16 bits, at a level of resolution, and prepare its first field."""
        network, image = number_of(request, "network", 0), number_of(request, "image")
        level, part = level_of(request), number_of(request, "input", 0)
        subject = self.session.subject(network)
        subject.check_part(part)
        pixels = await asyncio.to_thread(subject.pictures.shown, image, part)
        self.session.look(network, image)
        return _bytes(await asyncio.to_thread(encode_image, pixels, level, subject.pictures.spacing(image, part)))

    @_reported
    async def add_field(self, request: Request) -> Response:
        """Compute the receptive field of a unit."""
        given = await read_json(request)
        place = read_place(given)
        found = await self._computed(lambda gone: self.session.compute(place, gone), read_client(given))
        return _json(_described(found))

    @_reported
    async def add_projective(self, request: Request) -> Response:
        """Compute the projective field of a pixel."""
        given = await read_json(request)
        place = read_place(given)
        found = await self._computed(lambda gone: self.session.project(place, gone), read_client(given))
        return _json(_described(found))

    @_reported
    async def map(self, request: Request) -> Response:
        """Return the map of a field in half precision, at a level of resolution."""
        found = self._field(request)
        level = level_of(request) if found.kind == "field" else 0
        return _bytes(await asyncio.to_thread(encode_map, found.map, found.box, found.largest, level))

    @_reported
    async def map_npy(self, request: Request) -> Response:
        """Return the map of a field in full precision."""
        found = self._field(request)
        whole = await asyncio.to_thread(found.whole) if found.kind == "field" else found.map
        file = io.BytesIO()
        np.save(file, whole)
        return _download(file.getvalue(), f"{found.id}.npy", "application/octet-stream")

    @_reported
    async def numbers(self, request: Request) -> Response:
        """Return measures, curves and contours of the field of a unit."""
        found = self._field(request)
        if found.kind != "field":
            raise InputError("the field of a pixel has no measures")
        subject = self.session.subject(found.place.network)
        numbers = await asyncio.to_thread(field_numbers, subject, found)
        return _json(numbers.to_json())

    @_reported
    async def keep(self, request: Request) -> Response:
        """Keep a field, or no longer."""
        given, found = await read_json(request), self._field(request)
        if not self.session.fields.keep(found.id, given.get("kept") is True):
            raise InputError(f"{self.session.fields.most_kept} fields are kept; give up one of them first")
        return _json({})

    @_reported
    async def reproduce(self, request: Request) -> Response:
        """Return the command and the lines of Python that compute a field again."""
        found = self._field(request)
        subject = self.session.subject(found.place.network)
        return _json({"command": command_of(subject, found), "python": python_of(subject, found)})

    @_reported
    async def export(self, request: Request) -> Response:
        """Compute a field as a run does, and return it as a figure or an ERF file."""
        found, kind = self._field(request), request.query_params.get("format", "")
        if kind not in FORMATS or found.kind != "field":
            raise InputError(
                f"export of a {found.kind} as '{one_line(kind)[:20]}'; expected {', '.join(FORMATS)} of a field"
            )
        subject = self.session.subject(found.place.network)
        content = await self._computed(lambda _: export_field(subject, found, kind))
        return _download(content, f"{found.id}.{kind}", FORMATS[kind])

    @_reported
    async def file_map(self, request: Request) -> Response:
        """Return the mean map of a file, or the downsampled map of one of its images."""
        stored, level = self.session.file(number_of(request, "file")), level_of(request)
        subset, definition = self._subset(request)
        if "image" in request.query_params:
            map_ = await asyncio.to_thread(stored.of_image, number_of(request, "image"), definition)
            return _bytes(encode_map(map_, stored.box, float(np.abs(map_).max()), 0))
        map_ = await asyncio.to_thread(stored.mean, subset, definition)
        return _bytes(await asyncio.to_thread(encode_map, map_, stored.box, float(np.abs(map_).max()), level))

    @_reported
    async def background(self, request: Request) -> Response:
        """Return the thumbnail of an image of a file, or the mean of all of a subset."""
        stored = self.session.file(number_of(request, "file"))
        row = number_of(request, "image") if "image" in request.query_params else None
        found = await asyncio.to_thread(stored.background, self._subset(request)[0], row)
        if found is None:
            return _error(404, f"{stored.path.name} keeps no thumbnails")
        encoded = encode_image(found)
        box = ",".join(f"{edge:g}" for edge in stored.box)
        return _bytes(Encoded(encoded.content, dict(encoded.headers) | {"X-Box": box}))

    @_reported
    async def file_numbers(self, request: Request) -> Response:
        """Return measures, curves and contours of a file."""
        stored = self.session.file(number_of(request, "file"))
        subset, definition = self._subset(request)
        if "image" in request.query_params:
            row = stored.row(number_of(request, "image"))
            numbers = await asyncio.to_thread(image_numbers, stored, row, definition)
        else:
            numbers = await asyncio.to_thread(file_numbers, stored, subset, definition)
        return _json(numbers.to_json())

    def _subset(self, request: Request) -> tuple[str, str]:
        stored = self.session.file(number_of(request, "file"))
        given = request.query_params
        subset, definition = given.get("subset", "all"), given.get("definition", stored.erf.definition)
        stored.erf.check(one_line(subset)[:200], one_line(definition)[:200])
        return subset, definition

    def _field(self, request: Request) -> Field:
        return self.session.found(one_line(request.path_params["field"])[:40])

    async def _computed(self, work: Callable[[Cancelled], Any], client: str = "") -> Any:
        return await asyncio.wrap_future(self.session.worker.submit(work, client))


def _described(found: Field) -> Mapping[str, Any]:
    place = found.place
    about: dict[str, Any] = {
        "id": found.id,
        "kind": found.kind,
        "network": place.network,
        "image": place.image,
        "layer": place.layer,
        "channel": place.channel,
        "definition": place.definition,
        "box": list(found.box),
        "max": found.largest,
        "signed": found.is_signed,
        "seconds": round(found.seconds, 3),
        "way": found.way,
    }
    if found.kind == "projective":
        return about | {"pixel": list(found.center), "shape": list(found.map.shape)}
    theory = None if found.theory is None else list(found.theory)
    return about | {"unit": list(found.unit), "center": list(found.center), "theory": theory}


def _png(pixels: NDArray[np.float32]) -> bytes:
    planes = np.moveaxis(pixels, 0, -1)
    low, high = np.percentile(planes, (0.5, 99.5))
    shades = ((planes - low) * (255 / max(high - low, 1e-12))).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(shades[..., 0] if shades.shape[-1] != 3 else shades).save(file, "PNG")
    return file.getvalue()


def _download(content: bytes, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, headers=headers, media_type=media_type)
