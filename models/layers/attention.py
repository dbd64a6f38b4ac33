"""Self-attention between all positions of a feature map; subclasses define how positions are weighted.

Layout as in whiterabbit-ai/hct: positions row by row, eight heads, linear maps to queries, keys, values and output,
dropout on the output only, no positional encoding.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional


class MapAttention(nn.Module):
    """Base class of all kinds of attention; keeps the shape (N, C, H, W). Subclasses define `attend`."""

    def __init__(self, channels: int, heads: int = 8, dropout: float = 0.1, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, qkv_bias)
        self.to_k = nn.Linear(channels, channels, qkv_bias)
        self.to_v = nn.Linear(channels, channels, qkv_bias)
        self.to_out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: torch.Size) -> Tensor:
        """Return the attention-weighted values; all tensors are (N, heads, H*W, C/heads), `grid` is (H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (N, H*W, C), row by row
        with _without_autocast(x.device.type):
            wide = tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens
            q, k, v = (self._split(to(wide)) for to in (self.to_q, self.to_k, self.to_v))
            merged = self.attend(q, k, v, x.shape[2:]).transpose(1, 2).flatten(2)  # (N, H*W, C)
            out = self.dropout(self.to_out(merged))
        return out.to(x.dtype).transpose(1, 2).unflatten(2, x.shape[2:])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, H*W, C/heads)


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Disable autocast: half precision overflows in the normalisation by the sum over all keys."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


class ExactAttention(MapAttention):
    """Softmax attention without approximation; time grows with the square of the number of positions."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: torch.Size) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)
