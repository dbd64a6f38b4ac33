"""The kinds of attention: against formulas, against the libraries where they are right, and as approximations."""

from functools import partial

import nystrom_attention
import pytest
import torch
from torch import Tensor

from erf.models.hct import ATTENTIONS
from erf.models.layers.attention import ExactAttention
from erf.models.layers.nystrom import NystromAttention, pseudo_inverse
from erf.models.layers.performer import SoftmaxFeatureAttention, SoftmaxFeatures

KINDS = ATTENTIONS | {"performer-softmax with eps": partial(SoftmaxFeatureAttention, eps=1e-4)}


def difference(kind: str, scale: float) -> float:
    """Largest difference of the gradient to central differences at random inputs, relative to its size."""
    torch.manual_seed(0)
    attention = KINDS[kind](64).double().eval()
    x = (scale * torch.randn(1, 64, 6, 5, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(attention(x)[0, :, 3, 2].sum(), x)
    worst, step = 0.0, 1e-6
    for place in torch.randint(x.numel(), (40,)):
        shift = torch.zeros_like(x).flatten()
        shift[place] = step
        with torch.no_grad():
            ahead, behind = (attention(x + sign * shift.view_as(x))[0, :, 3, 2].sum() for sign in (1, -1))
        worst = max(worst, abs(float((ahead - behind) / (2 * step) - gradient.flatten()[place])))
    return worst / float(gradient.abs().max())


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_forward_pass(kind: str, scale: float) -> None:
    assert difference(kind, scale) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_see_its_batch(kind: str) -> None:
    torch.manual_seed(0)
    attention = KINDS[kind](64).double().eval()
    x = torch.randn(3, 64, 6, 5, dtype=torch.float64)
    x[2] *= 30
    for index in range(3):
        torch.testing.assert_close(attention(x[index : index + 1])[0], attention(x)[index], rtol=1e-10, atol=1e-12)


def test_exact_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention = ExactAttention(16, heads=2).double().eval()
    q, k, v = torch.randn(3, 2, 2, 30, 8, dtype=torch.float64)
    expected = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(attention.attend(q, k, v, torch.Size((6, 5))), expected, rtol=1e-10, atol=1e-12)


def test_softmax_features_with_eps_are_the_librarys() -> None:
    from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel

    torch.manual_seed(0)
    attention = SoftmaxFeatureAttention(64, eps=1e-4).double().eval()
    q, k, v = torch.randn(3, 2, 8, 30, 8, dtype=torch.float64)
    projection = attention.fast_attention.projection_matrix
    features = [softmax_kernel(u, projection_matrix=projection, is_query=query) for u, query in ((q, True), (k, False))]
    expected = linear_attention(*features, v)
    torch.testing.assert_close(attention.attend(q, k, v, torch.Size((6, 5))), expected, rtol=1e-9, atol=1e-12)


def test_softmax_features_estimate_the_softmax_kernel() -> None:
    torch.manual_seed(0)
    q, k = 0.5 * torch.randn(2, 1, 1, 12, 16, dtype=torch.float64)
    features = SoftmaxFeatures(16)
    # Independent normal rows, for which the estimate is unbiased; HCT's rows of one norm are only nearly so.
    features.projection_matrix = torch.randn(200_000, 16, dtype=torch.float64)
    features_q, features_k = features(q, k)
    weights = features_q @ features_k.transpose(-2, -1)
    exact = (q @ k.transpose(-2, -1) / 4).softmax(-1)
    # One feature's product has a relative variance of exp(|q + k|^2 / sqrt(d)) - 1, here about e^2, at most e^5; over
    # 200,000 features that leaves 0.6 %, at most 3 %.
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), exact, rtol=0.05, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_softmax_features_stay_finite_at_any_scale(scale: float) -> None:
    torch.manual_seed(0)
    attention = SoftmaxFeatureAttention(64).eval()
    x = (scale * torch.randn(1, 64, 6, 5)).requires_grad_()
    result = attention(x)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.isfinite(result).all()
    assert torch.isfinite(gradient).all()


def test_without_eps_there_is_no_floor() -> None:
    """A key that is far off gets the weight that softmax gives it, not a share that the library's constant sets."""
    torch.manual_seed(0)
    features = SoftmaxFeatures(8), SoftmaxFeatures(8, eps=1e-4)
    features[1].projection_matrix = features[0].projection_matrix
    q = torch.full((1, 1, 1, 8), 3.0, dtype=torch.float64)
    k = torch.cat([q, -q], dim=2)
    shares = []
    for kind in features:
        features_q, features_k = kind(q, k)
        weights = (features_q @ features_k.transpose(-2, -1))[0, 0, 0]
        shares.append(float(weights[1] / weights.sum()))
    assert shares[0] < shares[1]


@pytest.mark.parametrize("grid", [(6, 5), (5, 6), (8, 8)])
def test_nystrom_is_the_formula(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = NystromAttention(16, heads=2).double().eval()
    torch.nn.init.zeros_(attention.res_conv.weight)
    length, landmarks = grid[0] * grid[1], max(grid)
    q, k, v = torch.randn(3, 1, 2, length, 8, dtype=torch.float64)
    means = [torch.stack([part.mean(-2) for part in u.chunk(landmarks, dim=-2)], dim=-2) for u in (q, k)]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.transpose(-2, -1) / 8**0.5).softmax(-1)

    inverse = pseudo_inverse(kernel(means[0], means[1]), attention.iterations)
    expected = kernel(q, means[1]) @ inverse @ kernel(means[0], k) @ v
    torch.testing.assert_close(attention.attend(q, k, v, torch.Size(grid)), expected, rtol=1e-9, atol=1e-12)


def test_pseudo_inverse_converges_to_the_inverse() -> None:
    torch.manual_seed(0)
    x = (0.3 * torch.randn(3, 2, 10, 10, dtype=torch.float64)).softmax(-1) + torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(pseudo_inverse(x, 20), torch.linalg.inv(x), rtol=1e-9, atol=1e-9)


def test_nystrom_equals_the_library_for_a_single_head() -> None:
    """With one image and one head the library's start of the iteration is ours."""
    library = nystrom_attention.NystromAttention(16, dim_head=16, heads=1, num_landmarks=6, residual=True)
    ours = NystromAttention(16, heads=1).double().eval()
    library = library.double().eval()
    weights = torch.cat([getattr(ours, name).weight for name in ("to_q", "to_k", "to_v")])
    library.to_qkv.weight.data = weights
    library.to_out[0].load_state_dict(ours.to_out.state_dict())
    library.res_conv.load_state_dict(ours.res_conv.state_dict())
    x = torch.randn(1, 16, 6, 5, dtype=torch.float64)
    # The library builds its identity matrix in float32, which holds 0, 1 and their multiples by 13 exactly.
    expected = library(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(1, 16, 6, 5)
    torch.testing.assert_close(ours(x), expected, rtol=1e-9, atol=1e-12)
