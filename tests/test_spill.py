"""Tensors that are saved on disk, against the same backward pass in memory."""

from io import FileIO

import pytest
import torch
from torch import Tensor, nn

from erf.gradients.saved_tensors import _Spilled, saved_on_disk
from tests.conftest import small_network


def gradient(model: nn.Module, inputs: Tensor) -> Tensor:
    source = inputs.clone().requires_grad_()
    return torch.autograd.grad(model(source).square().sum(), source)[0]


class Mixed(nn.Module):
    """Operators that save transposed, expanded, boolean and integer tensors, and one in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.where(x.transpose(2, 3) > 0, x.transpose(2, 3), x.transpose(2, 3).exp())
        largest = kept.max(3, keepdim=True).values.expand_as(kept)
        return (kept * largest).sigmoid().to(torch.bfloat16).square().to(x.dtype)


@pytest.mark.parametrize("model", [small_network(), Mixed()], ids=["network", "mixed"])
def test_the_gradient_is_the_same(model: nn.Module) -> None:
    inputs = torch.randn(2, 1, 40, 32, dtype=torch.float64)
    expected = gradient(model, inputs)
    with saved_on_disk(smallest=0):
        found = gradient(model, inputs)
    assert torch.equal(found, expected)


def test_what_the_disk_has_no_room_for_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spilled: list[_Spilled] = []
    of = _Spilled.of

    def limited(tensor: Tensor, file: FileIO) -> _Spilled:
        if len(spilled) == 2:
            raise OSError(28, "No space left on device")
        spilled.append(of(tensor, file))
        return spilled[-1]

    monkeypatch.setattr(_Spilled, "of", limited)
    inputs = torch.randn(1, 1, 40, 32, dtype=torch.float64)
    with saved_on_disk(smallest=0):
        found = gradient(small_network(), inputs)
    assert len(spilled) == 2
    assert torch.equal(found, gradient(small_network(), inputs))
