"""The wavelet transform against PyWavelets, and WaveMix's counts."""

from typing import Any

import numpy as np
import pytest
import pywt
import torch

from erf.models import create_model
from erf.models.layers.wavelet import WaveletTransform, daubechies


@pytest.mark.parametrize("order", range(1, 11))
def test_filters_are_those_of_pywavelets(order: int) -> None:
    # PyWavelets stores them as decimal tables; 1e-13 allows for the roots that are found here.
    np.testing.assert_allclose(daubechies(order), pywt.Wavelet(f"db{order}").rec_lo, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_transform_is_that_of_pywavelets(order: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 24))
    low, details = WaveletTransform(order)(torch.from_numpy(x))
    expected_low, expected_details = pywt.dwt2(x, f"db{order}", mode="periodization", axes=(2, 3))
    np.testing.assert_allclose(low, expected_low, rtol=0, atol=1e-13)
    for index, expected in enumerate(expected_details):
        np.testing.assert_allclose(details[:, :, index], expected, rtol=0, atol=1e-13)


def test_haar_by_hand() -> None:
    low, details = WaveletTransform()(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]]))
    assert low.item() == pytest.approx(5.5)
    # Upper minus lower row, left minus right column, and the diagonal.
    np.testing.assert_allclose(details.flatten(), [-2.5, -1.5, 0.5], rtol=1e-6)


def test_odd_maps_and_orders_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="7x8, expected even height and width"):
        WaveletTransform()(torch.zeros(1, 1, 7, 8))
    with pytest.raises(ValueError, match="order 11; expected 1 to 10"):
        daubechies(11)


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        # Counted on the public package (wavemix 0.2.4, two classes), to 10,000.
        ({"levels": 1, "stem": "strided"}, 10.40),
        ({"levels": 1}, 10.64),
        ({"levels": 2, "stem": "strided"}, 16.94),
        ({"levels": 2}, 17.17),
        ({"levels": 3, "stem": "strided"}, 23.47),
        ({"levels": 3}, 23.70),
    ],
)
def test_counts_of_the_public_package(options: dict[str, Any], millions: float) -> None:
    model = create_model("wavemix", **options)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("options", [{"levels": 3}, {"order": 2}, {"stem": "strided", "stride": 2}])
def test_other_options_run(options: dict[str, Any]) -> None:
    model = create_model("wavemix", dim=16, depth=2, **options)
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 2)
