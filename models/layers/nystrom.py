"""Linear self-attention over the positions of a feature map, approximated with landmarks.

Paper: Xiong et al. Nyströmformer. AAAI 2021 (arXiv 2102.03902).
Source of configuration: nystrom-attention (MIT): no biases on queries, keys and values, six iterations, a depth-wise
convolution of the values over 33 neighbours; read for facts, the code is ours.

Deviations: the iteration for the pseudo-inverse starts from each matrix's own norms. The library takes the largest
norms over the whole batch and all heads, which makes an image's output depend on the other images. There are as many
landmarks as positions along the longer side of the map, as in the HCT paper; each is the mean of a row (or of as many
positions), so no padding is needed.
"""

import torch
from torch import Tensor, nn

from .attention import MapAttention

_NEIGHBOURS = 33


class NystromAttention(MapAttention):
    """Nyström attention with max(H, W) landmarks; keeps the shape (N, C, H, W)."""

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.1, iterations: int = 6) -> None:
        super().__init__(channels, heads, dropout, qkv_bias=False)
        self.iterations = iterations
        self.res_conv = nn.Conv2d(
            heads, heads, (_NEIGHBOURS, 1), padding=(_NEIGHBOURS // 2, 0), groups=heads, bias=False
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: torch.Size) -> Tensor:
        landmarks = max(grid)
        q = q * q.shape[-1] ** -0.5
        few_q, few_k = (u.unflatten(-2, (landmarks, -1)).mean(-2) for u in (q, k))
        to_landmarks = (q @ few_k.transpose(-2, -1)).softmax(-1)
        between = (few_q @ few_k.transpose(-2, -1)).softmax(-1)
        from_landmarks = (few_q @ k.transpose(-2, -1)).softmax(-1)
        inverse = pseudo_inverse(between, self.iterations)
        return (to_landmarks @ inverse) @ (from_landmarks @ v) + self.res_conv(v)


def pseudo_inverse(x: Tensor, iterations: int) -> Tensor:
    """Compute the pseudo-inverse of each matrix (..., n, n) iteratively (equation 11 of the paper)."""
    columns, rows = x.abs().sum(-2), x.abs().sum(-1)
    z = x.transpose(-2, -1) / (columns.amax(-1) * rows.amax(-1))[..., None, None]
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        xz = x @ z
        z = z @ (13 * one - xz @ (15 * one - xz @ (7 * one - xz))) / 4
    return z
