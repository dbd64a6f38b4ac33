"""Phantoms: the same for a seed, breast-like where it matters."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

import erf
from erf.images.phantom import draw_phantom

SIZE = (832, 640)


def test_the_same_bits_for_the_same_seed() -> None:
    digests = [hashlib.sha256(draw_phantom(5, seed, SIZE, 2).pixels.tobytes()).hexdigest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_order_does_not_matter() -> None:
    images = erf.load_images(n=6, size=(128, 96), seed=9).images
    backwards = [image.decode().sha256 for image in reversed(images)]
    assert backwards[::-1] == [image.decode().sha256 for image in images]
    assert len(set(backwards)) == 6


@pytest.mark.parametrize("index", range(8))
def test_a_breast_at_its_chest_wall_on_black(index: int) -> None:
    phantom = draw_phantom(index, 0, SIZE)
    assert phantom.pixels.dtype == np.uint16
    assert phantom.pixels.shape == SIZE
    filled = phantom.pixels > 0
    assert 0.08 < filled.mean() < 0.6
    chest, other = (0, -1) if phantom.laterality == "left" else (-1, 0)
    assert filled[:, chest].mean() > 0.3
    assert not filled[:, other].any()
    assert (phantom.view == "MLO") == filled[0].any()
    assert phantom.pixels.max() > 30000  # uses the 16 bits


def test_four_images_make_a_patient() -> None:
    phantoms = [draw_phantom(index, 0, (128, 96)) for index in range(8)]
    assert [(p.laterality, p.view) for p in phantoms[:4]] == [
        ("left", "CC"), ("right", "CC"), ("left", "MLO"), ("right", "MLO"),
    ]  # fmt: skip
    assert [p.patient_id for p in phantoms] == ["phantom-0000"] * 4 + ["phantom-0001"] * 4


def test_texture_falls_with_the_third_power_of_frequency() -> None:
    from erf.images.phantom import _texture

    texture = _texture(np.random.default_rng(0), (512, 512))
    power = np.abs(np.fft.fft2(texture)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    bins = np.geomspace(4 / 512, 0.45, 12)
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(bins)]
    slope = np.polyfit(np.log([frequency[r].mean() for r in rings]), np.log([power[r].mean() for r in rings]), 1)[0]
    # The lowest ring holds about 70 independent modes, whose mean power is known to 12 %; over two decades of
    # frequency that moves the slope by about 0.03.
    assert abs(slope + 3) < 0.1


def test_lesions_lie_in_their_boxes_and_are_brighter() -> None:
    for index in range(6):
        plain, marked = draw_phantom(index, 4, SIZE), draw_phantom(index, 4, SIZE, lesions=2)
        assert len(marked.lesions) == 2
        for lesion in marked.lesions:
            top, left, bottom, right = lesion.box
            assert 0 <= top < bottom <= SIZE[0]
            assert 0 <= left < right <= SIZE[1]
            assert lesion.label in ("mass", "calcifications")
            inside = marked.pixels[top:bottom, left:right].astype(float)
            assert inside.max() > plain.pixels[top:bottom, left:right].mean()


@pytest.mark.parametrize("size", [(64, 48), (100, 301), (33, 17)])
def test_any_size(size: tuple[int, int]) -> None:
    assert draw_phantom(1, 0, size).pixels.shape == size
