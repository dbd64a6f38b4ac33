"""Compare the protocols `replknet` and `vmamba` with a literal transcription of the published procedures.

    python scripts/check_protocols.py --size 1024 --models timm:resnet50 timm:swin_tiny_patch4_window7_224

The transcriptions are written from the descriptions: one image at a time through torchvision's transforms, autograd on
the rectified central unit, a running mean, and the shares of a square that grows by one pixel on each side. In float64,
because a ReLU whose input is 0 up to rounding passes a gradient in one computation and not in the other.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import erf
from erf.measures import measure_map

SHARES = (0.2, 0.3, 0.5, 0.99)
_BICUBIC = InterpolationMode.BICUBIC
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(folder: Path, count: int = 4, seed: int = 0) -> list[Path]:
    """Write images in colour that are not square: smooth structures of several sizes, with noise."""
    rng, paths = np.random.default_rng(seed), []
    for number in range(count):
        height, width = ((300, 400), (410, 280), (333, 500), (256, 390))[number % 4]
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(y / rng.uniform(5, 40) + x / rng.uniform(5, 40) + rng.uniform(0, 6)) for _ in range(9)]
        pixels = np.stack([sum(waves[channel::3]) for channel in range(3)], -1) * 30 + 127
        paths.append(folder / f"{number}.png")
        Image.fromarray((pixels + rng.normal(0, 10, pixels.shape)).clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def resizing(protocol: str, size: int) -> list[Any]:
    """Return the geometric transforms of a protocol."""
    if protocol == "replknet":
        return [transforms.Resize((size, size), _BICUBIC)]
    return [transforms.Resize(size, _BICUBIC), transforms.CenterCrop(size)]


def transcribed(protocol: str, model: nn.Module, layer: str, paths: Sequence[Path], size: int) -> NDArray[np.float64]:
    """Compute the mean map as the published scripts do, in the dtype of the model.

    Args:
        protocol: `replknet` or `vmamba`.
        model: the network, in eval mode.
        layer: path of the module whose output is the map, (N, C, H, W) or (N, H, W, C).
        paths: the images.
        size: side of the input in pixels.
    """
    steps = [*resizing(protocol, size), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    total, count = np.zeros((size, size)), 0
    outputs: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *found: outputs.append(found[2]))
    for path in paths:
        with Image.open(path) as picture:
            image: Any = transforms.Compose(steps)(picture.convert("RGB"))
        samples = image[None].to(next(model.parameters()).dtype).requires_grad_()
        outputs.clear()
        model(samples)
        (output,) = outputs
        if output.shape[1] == output.shape[2] != output.shape[3]:
            output = output.permute(0, 3, 1, 2)
        height, width = output.shape[2:]
        central = nn.functional.relu(output[:, :, height // 2, width // 2]).sum()
        (gradient,) = torch.autograd.grad(central, samples)
        total += nn.functional.relu(gradient).sum((0, 1)).double().numpy()
        count += 1
    handle.remove()
    return total / count


def area_ratios(map_: NDArray[np.floating]) -> list[float | None]:
    """Return RepLKNet's area ratios of `SHARES`: grow a square until it holds more than the share."""
    values = np.log10(map_ + 1)
    values = values / values.max()
    height, width = values.shape
    found: list[float | None] = []
    for share in SHARES:
        ratio = None
        for i in range(1, height // 2):
            square = values[height // 2 - i : height // 2 + 1 + i, width // 2 - i : width // 2 + 1 + i]
            if square.sum() / values.sum() > share:
                ratio = (2 * i + 1) / height * (2 * i + 1) / width
                break
        found.append(ratio)
    return found


def compare(protocol: str, name: str, folder: Path, size: int, double: bool = False) -> tuple[float, bool]:
    """Return the largest difference of the maps, relative to the maximum, and whether all area ratios are equal."""
    network = erf.build_network(name, weights="none", size=(size, size), seed=0)
    model = network.model.double() if double else network.model
    found = erf.load_protocol(protocol).run(
        network, folder, n=len(list(folder.iterdir())), device="cpu", progress=False
    )
    map_ = found["all"].mean
    expected = transcribed(protocol, model, found.provenance.layer, sorted(folder.iterdir()), size)
    ratios = list(measure_map(map_, [f"replknet{round(100 * share)}" for share in SHARES]).values())
    alike = all(
        (one is None and np.isnan(other)) or (one is not None and bool(np.isclose(one, other, rtol=1e-12)))
        for one, other in zip(area_ratios(expected), ratios, strict=True)
    )
    return float(abs(map_ - expected).max() / expected.max()), alike


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--models", nargs="+", default=["timm:resnet50", "timm:swin_tiny_patch4_window7_224"])
    parser.add_argument("--float32", action="store_true", help="in the networks' own precision, not in float64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder))
        for name in options.models:
            for protocol in ("replknet", "vmamba"):
                difference, alike = compare(protocol, name, Path(folder), options.size, double=not options.float32)
                print(
                    f"{protocol:9s} {name:40s} maps {difference:.1e} of the maximum, shares equal: {alike}", flush=True
                )


if __name__ == "__main__":
    main()
