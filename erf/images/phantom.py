"""Procedural mammograms: a substitute for data, reproducible by seed.

A phantom is the outline of a compressed breast at the chest wall (a superellipse, with the pectoral muscle in MLO
views), filled with texture whose power spectrum falls as frequency to the minus third power, as measured in
mammograms by Burgess, Jacobson, Judy (Medical Physics 2001), a glandular cone behind the nipple, a skin line, and
noise that grows with the signal. Background is exactly 0. Four images make a patient: left CC, right CC, left MLO,
right MLO; they share size and density.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erf.box import Box
from erf.images.image import Decoded
from erf.profiling import stage

VIEWS = (("left", "CC"), ("right", "CC"), ("left", "MLO"), ("right", "MLO"))

_SPECTRUM = -3.0
_COARSE = 1110
"""Approximate longest side of the grid for outline and texture, which are then interpolated; noise is at full size."""
_STRIP = 128
_NOISE = 0.02
_FULL_SCALE = 65535

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Lesion:
    """A finding drawn into a phantom."""

    label: str
    """'mass' or 'calcifications'."""
    box: Box[int]


@dataclass(frozen=True)
class Phantom:
    """One procedural mammogram."""

    pixels: NDArray[np.uint16]
    """Pixels (H, W)."""
    laterality: str
    view: str
    patient_id: str
    lesions: tuple[Lesion, ...] = ()


@dataclass(frozen=True)
class _Outline:
    """Shape of one patient's breast, in units of the image height; `depth` is measured from the chest wall."""

    middle: float
    half_height: float
    depth: float
    power: float
    density: float


def phantom_labels(index: int) -> tuple[str, str, str]:
    """Return (laterality, view, patient_id) of the phantom with this index."""
    return (*VIEWS[index % len(VIEWS)], f"phantom-{index // len(VIEWS):04d}")


def draw_phantom(index: int, seed: int = 0, size: tuple[int, int] = (3328, 2560), lesions: int = 0) -> Phantom:
    """Generate a phantom; its pixels depend on the arguments alone.

    Args:
        index: Number of the image from 0; four consecutive indices are the views of one patient.
        seed: Seed of the random generator.
        size: (height, width) in pixels.
        lesions: Number of findings.

    Returns:
        The phantom, with 16-bit pixels.

    Example:
        >>> import erf
        >>> phantom = erf.draw_phantom(0, size=(64, 48))
        >>> phantom.pixels.shape, phantom.pixels.dtype.name
        ((64, 48), 'uint16')
    """
    laterality, view, patient_id = phantom_labels(index)
    rng, signal, findings = _compose(index, seed, size, lesions)
    pixels = _develop(rng, signal, size, findings)
    if laterality == "right":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    return Phantom(pixels, laterality, view, patient_id, _as_seen(findings, laterality, size))


def find_lesions(index: int, seed: int, size: tuple[int, int], lesions: int) -> tuple[Lesion, ...]:
    """Findings of the phantom that `draw_phantom` makes from the same arguments, in a third of its time."""
    return _as_seen(_compose(index, seed, size, lesions)[2], phantom_labels(index)[0], size)


def _compose(
    index: int, seed: int, size: tuple[int, int], lesions: int
) -> tuple[np.random.Generator, Plane, list[tuple[Lesion, Plane]]]:
    """Coarse signal and findings with the chest wall at the left, and the random generator for the noise."""
    view = phantom_labels(index)[1]
    outline = _draw_outline(np.random.default_rng((seed, index // len(VIEWS), 0)), size)
    rng = np.random.default_rng((seed, index, 1))
    depth, signal = _tissue(rng, outline, view, _coarse_size(size), size[1] / size[0])
    return rng, signal, [_draw_finding(rng, _point_inside(rng, depth, size), size) for _ in range(lesions)]


def _as_seen(findings: Sequence[tuple[Lesion, Plane]], laterality: str, size: tuple[int, int]) -> tuple[Lesion, ...]:
    found = tuple(lesion for lesion, _ in findings)
    if laterality == "right":
        found = tuple(Lesion(lesion.label, _mirror(lesion.box, size[1])) for lesion in found)
    return found


def decode_phantom(index: int, seed: int, size: tuple[int, int], lesions: int = 0) -> Decoded:
    """Generate a phantom as a decoded image, like `read_image`."""
    with stage("decode"):
        pixels = draw_phantom(index, seed, size, lesions).pixels
    with stage("hash"):
        return Decoded(pixels[None], hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest())


def _draw_outline(rng: np.random.Generator, size: tuple[int, int]) -> _Outline:
    width = size[1] / size[0]
    return _Outline(
        middle=rng.uniform(0.46, 0.56),
        half_height=rng.uniform(0.26, 0.38),
        depth=min(rng.uniform(0.30, 0.50), 0.85 * width),
        power=rng.uniform(1.9, 2.3),
        density=rng.uniform(0.15, 0.45),
    )


def _coarse_size(size: tuple[int, int]) -> tuple[int, int]:
    factor = max(1, round(max(size) / _COARSE))
    return -(-size[0] // factor), -(-size[1] // factor)


def _tissue(
    rng: np.random.Generator, outline: _Outline, view: str, size: tuple[int, int], width: float
) -> tuple[Plane, Plane]:
    """Depth below the skin (negative outside) and X-ray signal (0 to about 1), with the chest wall at the left."""
    y = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
    u = np.linspace(0, width, size[1], dtype=np.float32)[None, :]
    u = u[:, : np.searchsorted(u[0], outline.depth, "right")]  # the rest is background
    above = np.float32(2.2 if view == "MLO" else 1.0)
    v = (y - outline.middle) / outline.half_height
    v = np.where(v < 0, v / above, v)
    radius = (np.abs(v) ** outline.power + (u / outline.depth) ** outline.power) ** (1 / outline.power)
    depth = 1 - radius
    texture = _texture(rng, size)[:, : u.size]
    thickness = np.sqrt(np.clip(depth / 0.25, 0, 1))
    cone = np.exp(-(((u - 0.5 * outline.depth) / (0.35 * outline.depth)) ** 2) - (v / 0.55) ** 2)
    gland = cone * np.clip(0.5 + outline.density + 0.45 * texture, 0, 1.6)
    skin = np.exp(-((depth - 0.012) ** 2) / (2 * 0.006**2))
    signal = thickness * (0.28 + 0.07 * texture + 0.34 * gland) + 0.10 * skin
    if view == "MLO":
        reach = outline.depth * (0.75 - 1.1 * y)
        muscle = 1 / (1 + np.exp(np.clip(-(reach - u) / 0.008, -50, 50)))
        signal = signal + 0.25 * muscle * thickness
    signal = np.where(depth > 0, np.maximum(signal, 0.02), 0).astype(np.float32)
    beyond = ((0, 0), (0, size[1] - u.size))
    return np.pad(depth, beyond, constant_values=-1), np.pad(signal, beyond)


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Plane:
    """Gaussian noise with a power-law spectrum, mean 0 and standard deviation 1."""
    fy, fx = np.fft.fftfreq(size[0]).astype(np.float32)[:, None], np.fft.rfftfreq(size[1]).astype(np.float32)[None, :]
    square = fy * fy + fx * fx
    square[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(size, dtype=np.float32))
    spectrum *= square ** np.float32(_SPECTRUM / 4)
    texture = np.fft.irfft2(spectrum, s=size).astype(np.float32, copy=False)
    texture /= texture.std()
    return texture


def _point_inside(rng: np.random.Generator, depth: Plane, size: tuple[int, int]) -> tuple[int, int]:
    """A random full-size position well inside the breast."""
    rows, columns = np.nonzero(depth > 0.3)
    pick = int(rng.integers(len(rows)))
    return round(rows[pick] * size[0] / depth.shape[0]), round(columns[pick] * size[1] / depth.shape[1])


def _draw_finding(rng: np.random.Generator, center: tuple[int, int], size: tuple[int, int]) -> tuple[Lesion, Plane]:
    """A mass or a cluster of calcifications, and the signal that it adds inside its box."""
    calcified = bool(rng.integers(2))
    half = max(4, round(size[0] * rng.uniform(0.008, 0.024)))
    top, left = max(0, center[0] - half), max(0, center[1] - half)
    bottom, right = min(size[0], center[0] + half), min(size[1], center[1] + half)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(center[0])) / np.float32(half)
    x = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(center[1])) / np.float32(half)
    added = _calcifications(rng, y, x, half) if calcified else _mass(rng, y, x)
    return Lesion("calcifications" if calcified else "mass", Box(top, left, bottom, right)), added


def _mass(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    """A lobed, softly bounded disc in the square -1 … 1."""
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    edge = np.full_like(angle, 0.62)
    for lobes in range(2, 9):
        edge += np.float32(0.22 / lobes * rng.standard_normal()) * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    inside = np.clip((np.clip(edge, 0.3, 0.9) - radius) / 0.12 + 0.5, 0, 1)
    return np.asarray(rng.uniform(0.12, 0.22) * inside, dtype=np.float32)


def _calcifications(rng: np.random.Generator, y: Plane, x: Plane, half: int) -> Plane:
    """Five to fifteen bright specks in the square -1 … 1."""
    specks = np.zeros(np.broadcast_shapes(y.shape, x.shape), dtype=np.float32)
    for _ in range(int(rng.integers(5, 16))):
        cy, cx = np.clip(rng.normal(0, 0.35, 2), -0.9, 0.9)
        spread = max(0.7, rng.uniform(1.0, 3.0)) / half
        specks += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * spread**2)).astype(np.float32)
    return np.float32(rng.uniform(0.25, 0.4)) * np.clip(specks, 0, 1)


def _develop(
    rng: np.random.Generator, signal: Plane, size: tuple[int, int], findings: Sequence[tuple[Lesion, Plane]]
) -> NDArray[np.uint16]:
    """Enlarge the signal, add findings and quantum noise, quantise; strip by strip, to spare memory."""
    pixels = np.zeros(size, dtype=np.uint16)
    x0, x1, wx = _interpolation(np.arange(size[1]), size[1], signal.shape[1])
    seen: NDArray[np.bool_] = np.any(signal, axis=0)
    width = _filled(np.logical_or(seen[x0], seen[x1]), findings)
    x0, x1, wx = x0[:width], x1[:width], wx[:width]
    for top in range(0, size[0], _STRIP):
        rows = np.arange(top, min(top + _STRIP, size[0]))
        y0, y1, wy = _interpolation(rows, size[0], signal.shape[0])
        tall = signal[y0] + wy[:, None] * (signal[y1] - signal[y0])
        strip = tall.take(x0, 1)
        strip += wx * (tall.take(x1, 1) - strip)
        for lesion, added in findings:
            _add(strip, top, lesion.box, added)
        _add_noise(rng, strip)
        np.clip(strip, 0, 1, out=strip)
        pixels[top : rows[-1] + 1, :width] = np.multiply(strip, np.float32(_FULL_SCALE), out=strip)
    return pixels


def _filled(columns: NDArray[np.bool_], findings: Sequence[tuple[Lesion, Plane]]) -> int:
    """Number of columns, from the chest wall, up to the last with signal or findings."""
    last = np.flatnonzero(columns)[-1:] + 1
    return max([*map(int, last), *(lesion.box.right for lesion, _ in findings)], default=0)


def _interpolation(
    positions: NDArray[np.intp], length: int, coarse: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Plane]:
    """Indices of the two coarse neighbours of each position, and the weight of the second, for linear interpolation."""
    at = np.clip((positions + 0.5) * (coarse / length) - 0.5, 0, coarse - 1)
    first = at.astype(np.intp)
    return first, np.minimum(first + 1, coarse - 1), (at - first).astype(np.float32)


def _add(strip: Plane, top: int, box: Box[int], added: Plane) -> None:
    """Add the rows of a finding that lie in a strip."""
    first, last = max(box.top, top), min(box.bottom, top + len(strip))
    if first < last:
        strip[first - top : last - top, box.left : box.right] += added[first - box.top : last - box.top]


def _add_noise(rng: np.random.Generator, strip: Plane) -> None:
    """Add quantum noise: its variance is proportional to the signal, and zero outside the breast."""
    filled = np.flatnonzero(strip.any(axis=0))
    width = int(filled[-1]) + 1 if len(filled) else 0
    noise = rng.standard_normal((len(strip), width), dtype=np.float32)
    strip[:, :width] += np.float32(_NOISE) * np.sqrt(strip[:, :width]) * noise


def _mirror(box: Box[int], width: int) -> Box[int]:
    return box._replace(left=width - box.right, right=width - box.left)
