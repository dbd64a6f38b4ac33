"""Copies to a GPU ahead of the passes: what is asked of the device, in which order, without having one."""

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import erf
from erf.accumulation.running import RunningMoments
from erf.errors import InputError
from erf.images import from_arrays
from erf.network.devices import deterministic_algorithms, float32_convolutions, is_memory_error
from erf.network.uploads import Upload, Uploader
from tests.agreement import assert_gradients_agree

PIXELS = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
META, CUDA = torch.device("meta"), torch.device("cuda")


class FakeStream:
    """Notes what is asked of a stream."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name, self.log = name, log

    def record_event(self) -> str:
        self.log.append((self.name, "record"))
        return "copied"

    def wait_event(self, event: str) -> None:
        self.log.append((self.name, "wait", event))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of CUDA, whose streams are fakes and whose memory is the meta device."""
    calls: list[Any] = []

    @contextmanager
    def entered(stream: FakeStream) -> Any:
        calls.append((stream.name, "enter"))
        yield
        calls.append((stream.name, "leave"))

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        calls.append("pin")
        return tensor.clone()

    def to(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        calls.append(("copy", non_blocking))
        return torch.empty_like(tensor, device=device)

    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: FakeStream("main", calls))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: calls.append((stream.name, "keeps")))
    return calls


def test_a_copy_is_made_from_pinned_memory_on_a_stream_of_its_own(log: list[Any]) -> None:
    upload = Uploader(META, FakeStream("side", log))(PIXELS)  # type: ignore[arg-type]
    assert upload.pixels.device == META
    assert log == [("side", "enter"), "pin", ("copy", True), ("side", "record"), ("side", "leave")]


def test_the_pass_waits_for_the_copy_and_keeps_its_memory(log: list[Any]) -> None:
    upload = Uploader(META, FakeStream("side", log))(PIXELS)  # type: ignore[arg-type]
    log.clear()
    assert upload.arrived() is upload.pixels
    assert log == [("main", "wait", "copied"), ("main", "keeps")]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_without_cuda_pixels_stay_where_they_are(device: str) -> None:
    upload = Uploader.to(torch.device(device))(PIXELS)
    assert upload.arrived().data_ptr() == PIXELS.ctypes.data


def test_an_image_for_which_the_device_has_no_memory_is_copied_with_its_batch(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    upload = Uploader(META, FakeStream("side", log))(PIXELS)  # type: ignore[arg-type]
    assert upload.arrived().data_ptr() == PIXELS.ctypes.data


def test_passes_take_what_was_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is three times the image shows in the gradient of a square, which is twice its input."""

    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    monkeypatch.setattr(Uploader, "__call__", lambda _, pixels: Upload(3 * torch.from_numpy(pixels)))
    arrays = np.random.default_rng(0).uniform(1, 2, (4, 1, 5, 5)).astype(np.float32)
    images = from_arrays(list(arrays), normalisation="none")
    for batch_size in (1, 4):
        found = erf.compute(nn.Sequential(Square()), images, layer="0", device="cpu", batch_size=batch_size)
        expected = 6 * arrays[:, 0, 2, 2].mean(dtype=np.float64)
        assert_gradients_agree(found.statistics().mean[2, 2], expected, rtol=1e-6)


def test_sums_in_the_bands_of_a_gpu_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_moments import CPU, grid_of

    gradients = np.random.default_rng(0).standard_normal((3, 1, 300, 257))
    found = []
    for elements in (1 << 12, 1 << 22):
        monkeypatch.setattr("erf.accumulation.running._BAND_ELEMENTS", elements)
        running = RunningMoments(("abs",), grid_of(gradients), CPU)
        profile = [running.add([torch.from_numpy(one)]) for one in gradients][-1]["abs"]
        found.append((running.moments("abs"), profile))
    (narrow, few), (wide, one) = found
    np.testing.assert_allclose(narrow.mean, wide.mean, rtol=1e-13)
    np.testing.assert_allclose(narrow.deviations, wide.deviations, rtol=1e-11)
    for name in vars(few):
        np.testing.assert_allclose(getattr(few, name), getattr(one, name), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("products", "expected"), [("highest", False), ("high", True)])
def test_convolutions_are_as_precise_as_products(products: str, expected: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision(products)
        with float32_convolutions(CUDA):
            assert torch.backends.cudnn.allow_tf32 is expected
        assert torch.backends.cudnn.allow_tf32 is before[1]
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_an_operator_without_deterministic_algorithm_is_named() -> None:
    with pytest.raises(InputError, match=r"put_ has no deterministic algorithm.*leave out"):  # noqa: SIM117
        with deterministic_algorithms(True):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("words", ["CUDNN_STATUS_ALLOC_FAILED", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_libraries_of_cuda_that_lack_memory_are_understood(words: str) -> None:
    assert is_memory_error(RuntimeError(words))
