"""Draw a small data set of two kinds of tissue at several magnifications, in the folders of BreakHis.

    python scripts/synthetic_breakhis.py tissue --patients 6 --images 4

Nuclei lie in pink stroma: small and round in benign tissue, larger and irregular in malignant tissue. A network that
relies on their size in pixels fails at other magnifications; one that relies on their shape does not.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

MAGNIFICATIONS = (40, 100, 200, 400)

_STROMA, _NUCLEUS = np.array([228.0, 176.0, 205.0]), np.array([96.0, 60.0, 140.0])
_PIXELS_AT_40 = 0.9
"""Radius in pixels of one tissue unit at 40X."""


def draw_tissue(rng: np.random.Generator, malignant: bool, magnification: int, side: int) -> NDArray[np.uint8]:
    """Draw one RGB image (side, side, 3).

    Args:
        rng: random generator.
        malignant: whether nuclei are large and irregular.
        magnification: magnification, such as 40.
        side: height and width in pixels.
    """
    scale = _PIXELS_AT_40 * (magnification / 40) ** 0.6
    y, x = np.mgrid[:side, :side].astype(np.float64)
    covered = np.zeros((side, side))
    mean = 2.6 if malignant else 1.8
    count = max(3, rng.poisson(0.16 * side**2 / (np.pi * (mean * scale) ** 2)))
    for _ in range(count):
        radius = scale * mean * np.exp(rng.normal(0, 0.3 if malignant else 0.08))
        cy, cx = rng.uniform(-radius, side + radius, 2)
        angle, distance = np.arctan2(y - cy, x - cx), np.hypot(y - cy, x - cx)
        edge = np.ones_like(angle)
        for lobes in (2, 3, 5):
            edge += (0.22 if malignant else 0.03) * rng.standard_normal() * np.cos(lobes * angle + rng.uniform(0, 7))
        covered = np.maximum(covered, np.clip(radius * edge - distance + 0.5, 0, 1))
    shade = covered[..., None]
    picture = _STROMA * (1 - shade) + _NUCLEUS * shade + rng.normal(0, 9, (side, side, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_set(folder: Path, patients: int, images: int, side: int, magnifications: tuple[int, ...], seed: int) -> int:
    """Write the data set and return the number of images.

    Args:
        folder: folder of the data set.
        patients: patients per kind of tissue.
        images: images per patient and magnification.
        side: height and width of an image in pixels.
        magnifications: magnifications, such as 40.
        seed: seed of all random choices.
    """
    written = 0
    for kind, code in (("benign", "B_A"), ("malignant", "M_DC")):
        for patient in range(patients):
            slide = f"14-{10_000 * (kind == 'malignant') + patient}"
            for zoom in magnifications:
                place = folder / kind / "SOB" / f"SOB_{code}_{slide}" / f"{zoom}X"
                place.mkdir(parents=True, exist_ok=True)
                for number in range(images):
                    rng = np.random.default_rng((seed, kind == "malignant", patient, zoom, number))
                    picture = draw_tissue(rng, kind == "malignant", zoom, side)
                    Pillow.fromarray(picture).save(place / f"SOB_{code}-{slide}-{zoom}-{number + 1:03d}.png")
                    written += 1
    return written


def main() -> None:
    """Write the data set described by the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=10, help="of each kind (default: 10)")
    parser.add_argument("--images", type=int, default=4, help="of each patient at each magnification (default: 4)")
    parser.add_argument("--side", type=int, default=64, help="of an image, in pixels (default: 64)")
    parser.add_argument("--magnifications", default=",".join(map(str, MAGNIFICATIONS)))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    zooms = tuple(int(zoom) for zoom in given.magnifications.split(","))
    written = draw_set(given.folder, given.patients, given.images, given.side, zooms, given.seed)
    print(f"written: {written} images in {given.folder}")


if __name__ == "__main__":
    main()
