"""Counts of operations against sums by hand, and the papers' tables."""

import pytest
from torch import nn

from erf.models import ModelError
from erf.models.counts import count
from erf.models.layers.spectral import FourierBlock
from erf.models.tables import block_rows, network_rows


def test_a_convolution_a_norm_and_a_linear_layer_by_hand() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4 * 6, 5)
        )

    counted = count(build, (3, 4, 6))
    assert counted.convolutions == 3 * 9 * 8 * 24
    assert counted.norms == 2 * 8 * 24
    assert counted.products == 8 * 24 * 5
    assert counted.parameters == 3 * 9 * 8 + 16 + 8 * 24 * 5 + 5
    assert counted.conv_and_norm_parameters == 3 * 9 * 8 + 16


def test_fourier_transforms_by_hand() -> None:
    # There and back, 4 channels of 16x8 values: C N log2 N each.
    assert count(lambda: FourierBlock(4, (16, 8)), (4, 16, 8)).transforms == 2 * 4 * 128 * 7


def test_every_number_of_the_srb_tables_agrees() -> None:
    rows = [row for row, _ in (*network_rows("srb"), *block_rows())]
    assert len(rows) == 7 + 8
    for row in rows:
        assert row.agrees, row


def test_hct_is_truncated_in_its_paper() -> None:
    rows = {row.what: row for row, _ in network_rows("hct")}
    assert rows["gmic"].agrees
    assert rows["def-gmic"].agrees
    for name in ("hct", "hct-softmax", "hct-nystrom"):
        assert not rows[name].agrees
        assert int(rows[name].ours * 100) / 100 == float(rows[name].printed)


def test_an_unknown_table() -> None:
    with pytest.raises(ModelError, match="no table 'x'; expected one of srb, hct"):
        list(network_rows("x"))
