"""`erf bench`: time the engine on this machine."""

import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import busy, fail, reported_errors, say, warn
from erf.cli.network import build_network, pick_layers
from erf.cli.options import Device, ModelArguments, ModelName, Size, Trust

if TYPE_CHECKING:
    from erf.building import Network
    from erf.engine.settings import Settings

_PHANTOMS = 4
"""Number of images of the run whose stages are timed."""


def bench(
    model: ModelName,
    layer: Annotated[str, typer.Option(help="Name of the layer; default: what global pooling receives.")] = "",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per pass of the engine.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timings, of which the median is taken.")] = 5,
    device: Device = "auto",
) -> None:
    """Time the engine and a standard autograd loop, side by side on noise, and estimate a run of 100 images.

    Decoding is not counted there; it runs in parallel with the network. A second table shows all stages of a short run
    from files of phantoms to a result on disk.
    """
    with reported_errors():
        import numpy as np
        import torch

        from erf.cli.tables import print_table
        from erf.engine.benchmark import engine_loop, plain_loop, take_turns
        from erf.engine.settings import Settings
        from erf.network.devices import memory_errors, pick_device

        chosen = pick_device(device)
        found_net = build_network(model, size=size, model_args=model_arg, trust=trust)
        network, frame = found_net.model, found_net.size
        if found_net.arguments.names or found_net.arguments.depth or found_net.arguments.signal:
            fail(f"{model} does not take single images; `erf bench` times networks that do")
        tapped = _tapped(found_net, layer)
        channels = found_net.channels
        images = [
            np.random.default_rng(seed).standard_normal((channels, *frame), dtype=np.float32)
            for seed in range(batch_size)
        ]
        visits = {
            "autograd loop": plain_loop(copy.deepcopy(network), tapped, chosen),
            "erf": engine_loop(network, tapped, chosen),
        }
        with busy("timing"), memory_errors("use a smaller `size` or `batch_size`"):
            found = take_turns(visits, images, rounds, chosen)
        slow = found["autograd loop"]
        rows = [
            [name, f"{seconds:.3f}", f"{slow / seconds:.2f}", f"{100 * seconds:.0f}"] for name, seconds in found.items()
        ]
        threads = f"{torch.get_num_threads()} threads" if chosen.type == "cpu" else str(chosen)
        print_table(
            f"{model}, layer {tapped}, {frame[0]}x{frame[1]}, {threads}, median of {rounds} rounds",
            ["", "s per image", "speed-up", "s per 100 images"],
            rows,
        )
        _print_stages(found_net, tapped, Settings(device=device, batch_size=batch_size))


def _print_stages(network: "Network", layer: str, settings: "Settings") -> None:
    """Time the stages of a short run from files of phantoms to a result on disk."""
    from erf.cli.tables import print_stage_times
    from erf.engine import compute_layers
    from erf.images import PHANTOM, choose_images
    from erf.profiling import profiled
    from erf.storage import FileSink

    with TemporaryDirectory() as name, busy("timing stages"):
        folder = Path(name)
        _write_phantoms(folder, network.size)
        start = time.perf_counter()
        with profiled() as times, FileSink(folder / "erf.h5") as sink:
            images = choose_images(folder, network.framing(source=PHANTOM), n=_PHANTOMS)
            compute_layers(network.model, images, [layer], settings, sinks=[sink], warn=warn)
        seconds = time.perf_counter() - start
    say(f"Stages of a run over {_PHANTOMS} phantoms, from 16-bit PNG files:")
    print_stage_times(times, seconds)


def _write_phantoms(folder: Path, size: tuple[int, int]) -> None:
    from PIL import Image

    from erf.images import draw_phantom

    for index in range(_PHANTOMS):
        phantom = draw_phantom(index, size=size)
        side = phantom.laterality[0].upper()
        Image.fromarray(phantom.pixels).save(folder / f"{index}_{side}_{phantom.view}.png", compress_level=1)


def _tapped(network: "Network", text: str) -> str:
    """Return the single layer named by a text; it must be a module, so that the autograd loop can register a hook."""
    layers = pick_layers(network, text)
    if len(layers) != 1:
        fail(f"{len(layers)} layers; expected one --layer")
    network.locate(layers[0])
    if layers[0] not in dict(network.model.named_modules()):
        fail(f"layer '{layers[0]}' is an output, not a module; expected a module, as `erf layers` lists them")
    return layers[0]
