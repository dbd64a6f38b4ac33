"""Measure the gain from sharing the forward pass between many units of one image, relative to one pass per unit.

    python -m benchmarks.positions

Both methods use the engine's crops and contexts and take turns; decoding and sums are excluded.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

from erf.cli.console import parse_size
from erf.cli.tables import print_table
from erf.engine.passes import Pass, plan_passes
from erf.engine.settings import Settings
from erf.engine.units import measured_units
from erf.gradients.autograd import unit_gradients
from erf.gradients.backward import input_gradients_only
from erf.models import create_model, model_card
from erf.network.devices import memory_layout, reuse_freed_memory
from erf.network.modes import frozen
from erf.theory.tracing import trace

CASES = {"hct": "1664x1280", "gmic": "1664x1280", "unet-srb-f": "256x256", "resnet50": "512x512"}


def visit(model: nn.Module, inputs: torch.Tensor, passes: Sequence[Pass]) -> float:
    """Compute the gradients of all units; return the time in seconds."""
    start = time.perf_counter()
    for each in passes:
        for gradient in unit_gradients(model, each.crop.cut(inputs).contiguous(), each.crop.targets):
            del gradient
    return time.perf_counter() - start


def measure(name: str, size: str, grid: str, rounds: int) -> list[str]:
    """Measure one network and return its row of the table.

    Args:
        name: name of the network.
        size: HEIGHTxWIDTH of the input.
        grid: ROWSxCOLUMNS of units.
        rounds: measured rounds.
    """
    card, shape = model_card(name), parse_size(size)
    model = create_model(name, size=shape)
    layer, input_shape = card.default_layer, (card.in_channels, *shape)
    settings = Settings(unit=f"grid:{grid}")
    units = measured_units(trace(model, [layer], input_shape), settings)
    shared = plan_passes(model, units, input_shape, settings)
    single = [one for unit in units for one in plan_passes(model, [unit], input_shape, settings)]
    inputs = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    times: dict[str, list[float]] = {"shared": [], "single": []}
    with frozen(model, memory_layout(cpu)), input_gradients_only(model):
        visit(model, inputs, single[:2])
        for _ in range(rounds):
            times["shared"].append(visit(model, inputs, shared))
            times["single"].append(visit(model, inputs, single))
    together, apart = median(times["shared"]), median(times["single"])
    ways = "one pass" if len(shared) == 1 else f"{len(shared)} crops"
    return [name, size, f"{len(units)}", ways, f"{together:.2f}", f"{apart:.2f}", f"{together / apart:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(CASES), help="with commas")
    parser.add_argument("--grid", default="10x10", help="units, ROWSxCOLUMNS; as many as the layer has at most")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    reuse_freed_memory()
    rows = [measure(name, CASES[name], options.grid, options.rounds) for name in options.models.split(",")]
    columns = ["network", "size", "units", "how", "together [s]", "one by one [s]", "ratio"]
    print_table(f"{torch.get_num_threads()} threads, median of {options.rounds}", columns, rows, left=2)


if __name__ == "__main__":
    main()
