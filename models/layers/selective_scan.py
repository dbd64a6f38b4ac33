"""The selective scan of Mamba in plain PyTorch, for machines without its CUDA kernels.

Paper: Gu, Dao. Mamba: linear-time sequence modeling with selective state spaces (arXiv 2312.00752), equations 2 and 4.
"""

import torch
from torch import Tensor
from torch.nn import functional


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803 (names of the paper and of mamba_ssm)
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan a sequence with a state space model whose step, input and output depend on the sequence.

    With the state h of each channel, of N numbers and 0 at first:
    h_t = exp(Δ_t A) h_(t-1) + Δ_t B_t u_t, and y_t = C_t · h_t + D u_t, times silu(z_t) where there is z.

    Args:
        u: sequences (batch, channels, length).
        delta: steps Δ (batch, channels, length).
        A: (channels, N), real.
        B: (batch, N, length), (batch, groups, N, length) for groups of equally many channels, or (channels, N).
        C: as B.
        D: (channels,).
        z: gate (batch, channels, length).
        delta_bias: (channels,), added to delta.
        delta_softplus: whether delta becomes softplus(delta).
        return_last_state: whether to return the last state too.

    Returns:
        y (batch, channels, length), in the dtype of u; with `return_last_state` also h (batch, channels, N).
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = functional.softplus(delta)
    y, last = _scanned(u, delta, A, _by_channel(B, u), _by_channel(C, u))
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * functional.silu(z)
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _by_channel(values: Tensor, u: Tensor) -> Tensor:
    """Expand B or C to (batch, channels, N, length)."""
    if values.ndim == 2:
        return values[None, :, :, None].expand(len(u), -1, -1, u.shape[-1])
    grouped = values[:, None] if values.ndim == 3 else values
    return grouped.repeat_interleave(u.shape[1] // grouped.shape[1], 1)


def _loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    """Compute y without D and z, and the last state; B and C by channel."""
    state = torch.zeros_like(B[..., 0] * A)
    found = []
    for step in range(u.shape[-1]):
        at = delta[..., step, None]
        state = torch.exp(at * A) * state + at * B[..., step] * u[..., step, None]
        found.append((state * C[..., step]).sum(-1))
    return torch.stack(found, -1), state


@torch.library.custom_op("erf::selective_scan", mutates_args=())
def _scanned(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    # One operator, so that theoretical fields are followed through it at once: it is global along the sequence.
    with torch.no_grad():
        return _loop(u, delta, A, B, C)


@_scanned.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803
    return torch.empty_like(u), u.new_empty((*u.shape[:2], A.shape[1]))


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, by_y: Tensor, by_state: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    """Run the loop again with gradients: its states are too many to be kept for all layers of a network."""
    with torch.enable_grad():
        inputs = [one.detach().requires_grad_() for one in ctx.saved_tensors]
        outputs = _loop(*inputs)
    return torch.autograd.grad(outputs, inputs, [by_y, by_state], materialize_grads=True)


_scanned.register_autograd(_backward, setup_context=_setup)
