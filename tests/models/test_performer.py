"""Performer attention against the formula, and against what it approximates."""

import math

import pytest
import torch

from erf.models.layers.performer import PerformerAttention


def reference(attention: PerformerAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention with ReLU features as a full matrix of weights between all pairs of positions."""
    n, channels, height, width = x.shape
    tokens = x.reshape(n, channels, -1).permute(0, 2, 1)
    projection = attention.fast_attention.projection_matrix
    size = channels // attention.heads
    result = torch.zeros_like(tokens)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = (linear(tokens)[:, :, part] for linear in (attention.to_q, attention.to_k, attention.to_v))
        # performer-pytorch scales by d^(-1/4) before projecting, and adds 1e-3 to keep weights positive.
        features = [torch.relu(size**-0.25 * u @ projection.T) + 1e-3 for u in (q, k)]
        weights = features[0] @ features[1].transpose(1, 2)
        result[:, :, part] = (weights / weights.sum(-1, keepdim=True)) @ v
    return attention.to_out(result).permute(0, 2, 1).reshape(n, channels, height, width)


@pytest.fixture
def attention() -> PerformerAttention:
    torch.manual_seed(0)
    return PerformerAttention(64).double().eval()


def test_equal_to_the_full_matrix(attention: PerformerAttention) -> None:
    x = torch.randn(2, 64, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(attention(x), reference(attention, x), rtol=1e-10, atol=1e-12)


def test_gradient_equal_to_the_full_matrix(attention: PerformerAttention) -> None:
    x = torch.randn(1, 64, 6, 5, dtype=torch.float64, requires_grad=True)
    ours, theirs = (torch.autograd.grad(f[0, :, 3, 2].sum(), x)[0] for f in (attention(x), reference(attention, x)))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("channels", "features"), [(64, 16), (128, 44), (256, 110)])
def test_projection_has_rows_of_one_norm(channels: int, features: int) -> None:
    size = channels // 8
    projection = PerformerAttention(channels).fast_attention.projection_matrix
    assert projection.shape == (features, size)
    assert features == int(size * math.log(size))
    torch.testing.assert_close(projection.norm(dim=1), torch.full((features,), math.sqrt(size)), rtol=1e-5, atol=0)


def test_equal_to_the_library_with_the_same_parts(attention: PerformerAttention) -> None:
    from performer_pytorch import SelfAttention  # warns when it is imported before our module has

    library = (
        SelfAttention(64, heads=8, dim_head=8, generalized_attention=True, qkv_bias=True, attn_out_bias=True)
        .double()
        .eval()
    )
    library.load_state_dict(attention.state_dict())
    x = torch.randn(1, 64, 4, 4, dtype=torch.float64)
    expected = library(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 64, 4, 4)
    torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-12)


def test_half_precision_is_widened(attention: PerformerAttention) -> None:
    x = torch.randn(1, 64, 8, 8)
    single = attention.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = single(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: input and output are each rounded once.
    torch.testing.assert_close(narrow.float(), single(x.bfloat16().float()), rtol=2**-7, atol=2**-9)
