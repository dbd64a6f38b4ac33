"""Spectral residual blocks, and the blocks with which they are compared."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from erf.gradients.autograd import unit_gradient
from erf.models import create_model, reorthogonalise
from erf.models.layers.global_blocks import DoubleAttentionBlock, NonLocalBlock
from erf.models.layers.spectral import FourierBlock, OrthogonalBlock, SpectralReLU, resample_spectrum


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kind", [FourierBlock, OrthogonalBlock])
@pytest.mark.parametrize(("channels", "size"), [(2, (8, 8)), (6, (7, 9)), (16, (12, 5)), (20, (1, 4))])
def test_any_even_number_of_channels_and_any_size(kind: type[nn.Module], channels: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, channels, *size)
    assert torch.equal(kind(channels, size)(x), x)  # alpha starts at 0
    on = kind(channels, size, alpha=1.0).eval()
    assert on(x).shape == x.shape
    assert not torch.equal(on(x), x)


@pytest.mark.parametrize("kind", [FourierBlock, OrthogonalBlock])
def test_an_odd_number_of_channels_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="3 channels; expected an even number"):
        kind(3, (8, 8))


@pytest.mark.parametrize("block", [FourierBlock(6, (9, 10)), OrthogonalBlock(6, (9, 10))])
def test_the_inverse_undoes_the_transform(block: FourierBlock) -> None:
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64)
    block = block.double()
    torch.testing.assert_close(block.inverse(block.transform(x), x.shape[2:]), x, rtol=0, atol=1e-5)
    if isinstance(block, FourierBlock):
        torch.testing.assert_close(block.inverse(block.transform(x), x.shape[2:]), x, rtol=0, atol=1e-12)


def test_fourier_block_written_out_with_numpy() -> None:
    """Equation 1 with the discrete Fourier transform as sums, for one group and batch norm with known statistics."""
    torch.manual_seed(0)
    channels, height, width = 2, 4, 6
    block: Any = FourierBlock(channels, (height, width), alpha=0.75).double().eval()  # exact in float32
    block.norm.running_mean.uniform_(-1, 1)
    block.norm.running_var.uniform_(0.5, 2)
    block.relu.weight.data.uniform_(-1, 1)
    block.relu.bias.data.uniform_(-1, 1)
    x = torch.randn(1, channels, height, width, dtype=torch.float64)
    y, v = np.arange(height), np.arange(width)
    rows = np.exp(-2j * np.pi * np.outer(y, y) / height) / np.sqrt(height)
    columns = np.exp(-2j * np.pi * np.outer(v, v) / width) / np.sqrt(width)
    half = width // 2 + 1
    spectrum = np.stack([rows @ plane @ columns.T for plane in x[0].numpy()])[:, :, :half]
    z = np.stack([part for plane in spectrum for part in (plane.real, plane.imag)])  # re, im, re, im
    first = block.reduce.weight.detach().numpy()[:, :, 0, 0]
    second = block.expand.weight.detach().numpy()[:, :, 0, 0]
    w, b = block.relu.weight.detach().numpy(), block.relu.bias.detach().numpy()
    hidden = np.maximum(w * np.einsum("kc,chw->khw", first, z) + b, 0)
    out = np.einsum("ck,khw->chw", second, hidden)
    mean, variance = block.norm.running_mean.numpy(), block.norm.running_var.numpy()
    out = (out - mean[:, None, None]) / np.sqrt(variance[:, None, None] + block.norm.eps)
    full = np.fft.irfft2(out[0::2] + 1j * out[1::2], s=(height, width), norm="ortho")
    np.testing.assert_allclose(block(x).detach().numpy()[0], x[0].numpy() + 0.75 * full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [FourierBlock, OrthogonalBlock])
def test_gradient_agrees_with_finite_differences(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    block: Any = kind(4, (5, 6), alpha=0.7).double().eval()
    block.relu.bias.data.fill_(0.3)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), eps=1e-7, atol=1e-6, nondet_tol=1e-12)


@pytest.mark.parametrize("kind", [FourierBlock, OrthogonalBlock])
def test_with_alpha_every_pixel_reaches_every_unit(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    for alpha, share in ((0.0, 1 / (16 * 12)), (0.1, 1.0)):
        net = nn.Sequential(kind(8, (16, 12), alpha=alpha)).double().eval()
        x = torch.randn(1, 8, 16, 12, dtype=torch.float64)
        gradient = unit_gradient(net, x, "0", (8, 6))[0].abs().sum(0)
        assert float((gradient != 0).double().mean()) == share


def test_parameters_of_table_3() -> None:
    # 8.704 K and 8.448 K count convolutions and batch norm; W, B, P, Q and alpha come on top.
    assert count(FourierBlock(128, (64, 64))) == 8_704 + 2 * 64 * 33 + 1
    assert count(OrthogonalBlock(128, (64, 64))) == 8_448 + 2 * 64 * 64 + 2 * 64 * 64 + 1
    assert count(FourierBlock(2048, (64, 64))) == 2_109_569
    assert count(NonLocalBlock(128)) == 33_024
    assert count(DoubleAttentionBlock(128)) == 16_640


@pytest.mark.parametrize(
    ("kind", "found"), [(FourierBlock, "8x5 frequencies, found 4x3"), (OrthogonalBlock, "8x8, found 4x4")]
)
def test_another_size_is_refused(kind: type[nn.Module], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        kind(4, (8, 8), alpha=1.0)(torch.randn(1, 4, 4, 4))


def test_resized_parameters_keep_their_frequencies() -> None:
    # A plane that is linear in the distance from the lowest frequency, rows wrapping round, stays so.
    def plane(height: int, columns: int) -> torch.Tensor:
        rows = torch.fft.fftfreq(height).abs()
        return rows[:, None] + torch.linspace(0, 0.5, columns)

    for size in ((8, 5), (16, 9), (64, 17)):
        torch.testing.assert_close(resample_spectrum(plane(32, 17), size), plane(*size), rtol=0, atol=1e-5)
    assert torch.equal(resample_spectrum(plane(8, 5), (8, 5)), plane(8, 5))
    relu = SpectralReLU((8, 5), resize=True)
    relu.weight.data = plane(8, 5)
    z = torch.rand(1, 2, 16, 9)
    torch.testing.assert_close(relu(z), z * resample_spectrum(plane(8, 5), (16, 9)))


def test_orthogonal_matrices_stay_orthogonal_under_training() -> None:
    torch.manual_seed(0)
    model: Any = create_model("unet-star-srb-a", size=(32, 48), alpha=0.1).train()
    block = model.blocks["before-up4"]
    before = block.p.detach().clone()
    reorthogonalise(model)
    torch.testing.assert_close(block.p, before, rtol=0, atol=1e-5)  # it is orthogonal already
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 32, 48)).square().mean().backward()
        optimizer.step()
        strayed = (block.p @ block.p.T - torch.eye(len(block.p))).abs().max()
        assert strayed > 1e-2
        reorthogonalise(model)
        for matrix in (block.p, block.q):
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), rtol=0, atol=1e-5)
    assert (block.p - before).abs().max() > 1e-2


def test_non_local_block_written_out() -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(4, scale=1.0).double().eval()
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64)
    flat = x.flatten(2)[0]
    theta, phi, g = (conv.weight[:, :, 0, 0] @ flat for conv in (block.theta, block.phi, block.g))
    out = torch.zeros(2, 6, dtype=torch.float64)
    for i in range(6):
        weights = torch.stack([(theta[:, i] * phi[:, j]).sum() for j in range(6)]).softmax(0)
        out[:, i] = sum(weights[j] * g[:, j] for j in range(6))
    expected = flat + (block.expand.weight[:, :, 0, 0] @ out) / np.sqrt(1 + block.norm.eps)
    torch.testing.assert_close(block(x).flatten(2)[0], expected, rtol=0, atol=1e-12)
    assert torch.equal(NonLocalBlock(4).eval()(x.float()), x.float())


def test_double_attention_block_written_out() -> None:
    torch.manual_seed(0)
    block = DoubleAttentionBlock(8).double().eval()
    x = torch.randn(1, 8, 3, 2, dtype=torch.float64)
    flat = x.flatten(2)[0]
    features, gather, hand_out = (
        conv.weight[:, :, 0, 0] @ flat for conv in (block.features, block.gather, block.hand_out)
    )
    zero = torch.zeros(len(features), dtype=torch.float64)
    descriptors = [sum((gather[i].softmax(0)[j] * features[:, j] for j in range(6)), zero) for i in range(2)]
    out = torch.stack(
        [sum((hand_out[:, j].softmax(0)[i] * descriptors[i] for i in range(2)), zero) for j in range(6)], dim=1
    )
    expected = flat + (block.expand.weight[:, :, 0, 0] @ out) / np.sqrt(1 + block.norm.eps)
    torch.testing.assert_close(block(x).flatten(2)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "added"),
    [
        # (C, map): 8,704-like counts C^2/2 + 4C, then W and B of H x (W/2 + 1) each, and alpha.
        ("unet", {"places": 1}, 256**2 // 2 + 4 * 256 + 2 * 32 * 17 + 1),
        ("unet", {"places": "before-up1"}, 32**2 // 2 + 4 * 32 + 2 * 256 * 129 + 1),
        ("unet-star", {"places": "after-up2"}, 16**2 // 2 + 4 * 16 + 2 * 512 * 257 + 1),
    ],
)
def test_blocks_are_where_they_are_asked_for(name: str, options: dict[str, Any], added: int) -> None:
    assert count(create_model(name, **options)) - count(create_model(name)) == added


@pytest.mark.parametrize("place", ["before-up4", "after-up4", "before-up1", "after-up1"])
def test_a_block_at_each_place_takes_part(place: str) -> None:
    x = torch.randn(1, 3, 32, 48)
    plain = create_model("unet", size=(32, 48))
    on: Any = create_model("unet", size=(32, 48), places=place, alpha=1.0)
    on.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(on(x), plain(x))
    on.blocks[place].alpha.data.zero_()
    assert torch.equal(on(x), plain(x))


def test_a_block_added_to_a_network_of_the_library_leaves_its_keys() -> None:
    plain, spectral = (
        create_model("densenet121"),
        create_model("densenet121-srb-f", places="features.transition2,features.denseblock4"),
    )
    assert set(plain.state_dict()) < set(spectral.state_dict())
    added = {key.rpartition(".relu")[0] for key in set(spectral.state_dict()) - set(plain.state_dict())} - {""}
    assert added == {"features.transition2.srb", "features.denseblock4_srb"}
