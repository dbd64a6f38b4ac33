"""Linear self-attention over the positions of a feature map, approximated with random features.

Paper: Choromanski et al. Rethinking attention with Performers. ICLR 2021 (arXiv 2009.14794).
Source: for ReLU features the layers of performer-pytorch (MIT), combined as in whiterabbit-ai/hct.

Deviations from performer-pytorch's `SelfAttention`: biases on queries, keys and values; rows of the random projection
scaled to exactly sqrt(d) instead of random norms; no redrawing. The projection is a buffer, so it is part of the state
dict; another projection makes another network.

Deviations of the softmax features from performer-pytorch: its gradient is not the gradient of its forward pass (the
maximum is detached while a constant is added after it), and its constant of 1e-4 lets every position depend slightly on
every other, whatever their values. Here the gradient is exact, and the constant is 0 by default. With `eps=1e-4` the
forward pass equals the library's.
"""

import math
import warnings

import torch
from torch import Tensor, nn

from .attention import MapAttention

with warnings.catch_warnings():
    # performer-pytorch 1.1.4 imports distutils and uses a deprecated autocast at import; both still work.
    warnings.simplefilter("ignore", category=DeprecationWarning)
    warnings.simplefilter("ignore", category=FutureWarning)
    from performer_pytorch import FastAttention
    from performer_pytorch.performer_pytorch import gaussian_orthogonal_random_matrix


class PerformerAttention(MapAttention):
    """Attention with ReLU random features, in time linear in the number of positions."""

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__(channels, heads, dropout)
        self.fast_attention = FastAttention(
            channels // heads, ortho_scaling=1, generalized_attention=True, kernel_fn=nn.ReLU()
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: torch.Size) -> Tensor:
        return self.fast_attention(q, k, v)


class SoftmaxFeatureAttention(MapAttention):
    """Attention with positive random features of the softmax kernel, in time linear in the number of positions."""

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.1, eps: float = 0.0) -> None:
        super().__init__(channels, heads, dropout)
        self.fast_attention = SoftmaxFeatures(channels // heads, eps)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: torch.Size) -> Tensor:
        features_q, features_k = self.fast_attention(q, k)
        context = features_k.transpose(-2, -1) @ v
        return (features_q @ context) / (features_q @ features_k.sum(-2).unsqueeze(-1))


class SoftmaxFeatures(nn.Module):
    """FAVOR+: random features whose products estimate exp(q·k / sqrt(d)), up to factors that cancel."""

    projection_matrix: Tensor

    def __init__(self, dimension: int, eps: float = 0.0) -> None:
        super().__init__()
        features = int(dimension * math.log(dimension))
        self.eps = eps
        self.register_buffer("projection_matrix", gaussian_orthogonal_random_matrix(features, dimension, scaling=1))

    @torch.no_grad()
    def redraw_projection_matrix(self, device: torch.device) -> None:
        """Draw another random projection in place, which makes another network."""
        features, dimension = self.projection_matrix.shape
        self.projection_matrix.copy_(gaussian_orthogonal_random_matrix(features, dimension, scaling=1, device=device))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (..., L, m) of queries and keys (..., L, d).

        Without `eps`, the largest exponent over all keys is moved, per feature, from the keys to the queries, and then
        each query's largest exponent is subtracted. Both shifts cancel in the attention, and its denominator is never
        below 1. With `eps` the library's exponents are used; their maxima do not cancel, so they stay part of the
        graph; otherwise the gradient would be that of another function.
        """
        projection, scale = self.projection_matrix.to(q.dtype), q.shape[-1] ** -0.25
        raw_q, raw_k = (scale * u @ projection.T for u in (q, k))
        half_q, half_k = ((scale * u).square().sum(-1, keepdim=True) / 2 for u in (q, k))
        if self.eps == 0:
            exponent_k = raw_k - half_k
            top = exponent_k.amax(-2, keepdim=True)
            exponent_q = raw_q + top
            return (exponent_q - exponent_q.amax(-1, keepdim=True)).exp(), (exponent_k - top).exp()
        exponent_q = raw_q - half_q - raw_q.amax(-1, keepdim=True)
        exponent_k = raw_k - half_k - raw_k.amax((-2, -1), keepdim=True)
        return exponent_q.exp() + self.eps, exponent_k.exp() + self.eps
