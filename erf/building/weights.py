"""Source and digest of a network's weights, and signs that it has none."""

import hashlib
import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from erf.models import ModelCard, WeightsError, shipped_weights
from erf.results import OWN, SHIPPED
from erf.text import file_name

SHIPPED_WORD, UNTRAINED_WORD = "shipped", "none"
"""Weights that come with the package, and no weights at all."""

_SMALL_SCALE = 1e-2
"""Largest layer scale that hides a residual branch."""


def find_weights(name: str, weights: str | Path | None, has_options: bool) -> Path | None:
    """Return the file of a network's weights.

    Args:
        name: name of the network.
        weights: file, 'shipped', 'none', `timm:TAG`, or None for shipped weights if there are any.
        has_options: whether the network has options; shipped weights fit only one without.

    Returns:
        The file, or `timm:TAG` as a path; None for an untrained network.

    Raises:
        WeightsError: no weights are shipped for the network.
    """
    if weights == UNTRAINED_WORD:
        return None
    if weights is not None and weights != SHIPPED_WORD:
        return Path(weights)
    found = None if has_options else shipped_weights(name)
    if weights and found is None:
        why = "with options" if has_options else "for it"
        raise WeightsError(f"model '{name}': no weights are shipped {why}; expected a weights file, or `none`")
    return found


def origin_of_weights(name: str, model: nn.Module, card: ModelCard, weights: Path | None) -> tuple[str, str]:
    """Return the source of the weights and their SHA-256, of the file or of the state that a factory returned."""
    if weights is not None and weights == shipped_weights(name):
        return f"{SHIPPED}{weights.name}", file_digest(weights)
    if weights is not None:
        return str(weights), file_digest(weights) if weights.is_file() else ""
    if not card.brings_weights:
        return "", ""
    return f"{OWN}{file_name(name)}", state_digest(model)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def code_digest(model: str) -> str:
    """Return the SHA-256 of the user's file that defines a network; '' if there is none."""
    file = Path(model.rpartition(":")[0] or model)
    return file_digest(file) if file.is_file() else ""


def structure_digest(model: nn.Module) -> str:
    """Return the SHA-256 of what the modules of a network are: classes, their source code, and settings."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        kind = type(module)
        digest.update(f"{name} {kind.__module__} {kind.__qualname__} {module.extra_repr()}\n".encode())
        if not kind.__module__.startswith("torch."):
            digest.update(_source(kind).encode())
    return digest.hexdigest()


def _source(kind: type[nn.Module]) -> str:
    """Return the source code of a class, or the byte code of its forward pass where there is none."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        code = getattr(kind.forward, "__code__", None)
        return f"{code.co_code!r} {code.co_names}" if code else ""


def state_digest(model: nn.Module) -> str:
    """Return the SHA-256 of parameters and buffers."""
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        if isinstance(tensor, Tensor):
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_state(file: Path | None) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns), to detect that the file was written to."""
    if file is None or not file.is_file():
        return 0, 0
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def hidden_branches(model: nn.Module) -> list[str]:
    """Describe the residual branches that start at 0: an untrained network then has the field of its shortcuts.

    Returns:
        A line for the norms or else for the layer scales that are 0 or nearly; empty if there are none.
    """
    norms = [
        path
        for path, module in model.named_modules()
        if "Norm" in type(module).__name__ and (weight := getattr(module, "weight", None)) is not None
        if weight.numel() and not weight.any()
    ]
    scales = [
        path
        for path, parameter in model.named_parameters()
        if path.rsplit(".", 1)[-1] in ("gamma", "gamma_1", "gamma_2", "layer_scale", "ls1", "scale")
        if parameter.numel() and float(parameter.detach().abs().max()) < _SMALL_SCALE
    ]
    found = norms or scales
    what = "norms" if norms else "layer scales"
    return [f"{len(found)} {what} (the first: {found[0]}) begin at 0 or nearly"] if found else []
