"""Linear self-attention over the positions of a feature map, with ReLU random features.

Paper: Choromanski et al. Rethinking attention with Performers. ICLR 2021 (arXiv 2009.14794).
Source: the parts of performer-pytorch (MIT), put together as in whiterabbit-ai/hct.

Deviations from performer-pytorch's `SelfAttention`: biases on queries, keys and values, rows of the random projection
scaled to exactly sqrt(d) instead of random norms, no redrawing. The projection is a buffer, so it is part of the state
dict; another projection is another network.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # performer-pytorch 1.1.4 asks for distutils and an old autocast while it is imported; both still work.
    warnings.simplefilter("ignore", category=DeprecationWarning)
    warnings.simplefilter("ignore", category=FutureWarning)
    from performer_pytorch import FastAttention


class PerformerAttention(nn.Module):
    """Self-attention between all positions, in time linear in their number; keeps the shape (N, C, H, W)."""

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.fast_attention = FastAttention(
            channels // heads, ortho_scaling=1, generalized_attention=True, kernel_fn=nn.ReLU()
        )
        self.to_out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (N, H*W, C), row by row
        with _without_autocast(x.device.type):
            wide = tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens
            q, k, v = (self._split(to(wide)) for to in (self.to_q, self.to_k, self.to_v))
            merged = self.fast_attention(q, k, v).transpose(1, 2).flatten(2)  # (N, H*W, C)
            out = self.dropout(self.to_out(merged))
        return out.to(x.dtype).transpose(1, 2).unflatten(2, x.shape[2:])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, H*W, C/heads)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Half precision overflows in the normalisation by the sum over all keys."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
