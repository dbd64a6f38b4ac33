"""Compare time and memory of the engine with those of a standard autograd loop, captum and openerf.

The sides take turns, so that none benefits from a quiet phase of the machine, and times are medians per image.

* Networks: loops over arrays, without decoding, each in its own process with the same weights and images.
* Files: a whole ERF from PNG files of 224x224 pixels, including decoding, compared with openerf.
* Commands: `erf compute` as users run it, from files of the size of mammograms and from phantoms, compared with the
  standard loop, which decodes nothing. The cost of an image is the difference of a short and a long run.
* Jobs: `erf compute` over 100 phantoms, from start to end.

With `--against`, commands and jobs are also run with the code of another source tree. Needs Linux, the extra dev, and
for openerf `pip install --no-deps openerf`.

    python -m benchmarks.compare
    python -m benchmarks.compare --networks gmic hct --files --commands --rounds 7
    python -m benchmarks.compare --networks --files --commands gmic --sources npy --against ../before
    python -m benchmarks.compare --networks --files --commands --jobs gmic hct --rounds 3
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import nn

from benchmarks.commands import OWN_TREE, command_sides, job_sides
from benchmarks.loops import LOOPS, SUBJECTS, visit_arrays
from benchmarks.sources import SOURCES, write_sources
from benchmarks.turns import Visit, running, show, take_turns
from erf.cli.console import parse_size
from erf.engine import compute
from erf.images import load_images
from erf.models import create_model, model_card

FILES = ("resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny")
"""timm networks compared on files of 224x224 pixels, for openerf and the engine."""
_LAYERS = {"resnet50": "layer4", "convnext_tiny": "stages.3"}
_FILES = 96
COMMANDS = ("gmic", "hct", "def-gmic")


def compare_arrays(model: str, rounds: int) -> None:
    subject = SUBJECTS[model]
    with ExitStack() as stack:
        sides = {side: stack.enter_context(running(visit_arrays, side, subject)) for side in LOOPS}
        show(f"{model} {_text(subject.size)}", take_turns(sides, rounds), "plain")


def compare_files(name: str, folder: str, rounds: int) -> None:
    with ExitStack() as stack:
        sides = {side: stack.enter_context(running(visit_files, side, name, folder)) for side in ("openerf", "ours")}
        show(f"{name.partition('_patch')[0]} 224, files", take_turns(sides, rounds), "openerf")


def compare_commands(options: argparse.Namespace, folder: Path) -> None:
    counts = options.short, options.long
    write_sources(folder, options.sources, options.size, counts)
    for model in options.commands:
        with running(visit_arrays, "plain", replace(SUBJECTS[model], size=options.size)) as plain:
            sides = command_sides(model, options.size, folder, options.sources, counts, _trees(options.against))
            found = take_turns({"plain": plain, **sides}, options.rounds)
        show(f"{model} {_text(options.size)}, whole command", found, "plain")


def compare_jobs(options: argparse.Namespace) -> None:
    for model in options.jobs:
        sides = job_sides(model, options.size, options.images, _trees(options.against))
        found = take_turns(sides, options.rounds)
        show(f"{model} {_text(options.size)}, {options.images} phantoms", found, list(sides)[-1], "s")


def _trees(against: Path | None) -> dict[str, Path]:
    """Return the source trees, by the suffix of a side's name."""
    return {"": OWN_TREE} | ({", against": against} if against else {})


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def visit_files(side: str, name: str, folder: str) -> Visit:
    """Return a function that computes a whole ERF from a folder of files and returns the number of images.

    Args:
        side: `ours` or `openerf`.
        name: timm's name of the network.
        folder: folder of the images.
    """
    import timm

    torch.manual_seed(0)
    if side == "ours" and name.startswith("swin"):
        network: nn.Module = create_model("swin-tiny", size=(224, 224))
        layer = model_card("swin-tiny").default_layer
    else:
        network = timm.create_model(name, pretrained=False).eval()
        layer = _LAYERS.get(name, "forward_features")

    def theirs() -> int:
        from openerf.erf import compute_erf

        compute_erf(network, folder, target_layer=layer, device="cpu", show_progress=False)
        return _FILES

    def engine() -> int:
        images = load_images(folder, n=_FILES, size=(224, 224), channels=3, normalisation="unit")
        compute(network, images, layer=layer, device="cpu")
        return _FILES

    return engine if side == "ours" else theirs


def write_files(folder: str) -> None:
    rng = np.random.default_rng(0)
    for index in range(_FILES):
        pixels = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).resize((224, 224), Pillow.Resampling.BICUBIC).save(Path(folder) / f"{index:03d}.png")


def source_tree(text: str) -> Path:
    """Parse the path of a source tree; it must contain the package."""
    path = Path(text).resolve()
    if not (path / "erf" / "__main__.py").exists():
        raise argparse.ArgumentTypeError(f"{text} holds no erf/__main__.py; expected a source tree of the package")
    return path


def parse_options(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; None for that of this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = list(SUBJECTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=models, choices=models)
    parser.add_argument("--files", nargs="*", default=list(FILES), choices=FILES)
    whole = parser.add_argument_group("the whole command")
    whole.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=models)
    whole.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    whole.add_argument("--jobs", nargs="*", default=[], choices=models)
    whole.add_argument("--size", type=parse_size, default=(3328, 2560), help="HEIGHTxWIDTH of all images")
    whole.add_argument("--short", type=int, default=4, help="images of the short run")
    whole.add_argument("--long", type=int, default=14, help="images of the long run")
    whole.add_argument("--images", type=int, default=100, help="phantoms of a job")
    whole.add_argument(
        "--against", type=source_tree, help="another source tree, whose code takes turns with this one's"
    )
    options = parser.parse_args(words)
    if not 0 < options.short < options.long:
        parser.error(f"--short {options.short} and --long {options.long}; expected a long run of more images")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Run the selected comparisons and print their results."""
    options = parse_options(words)
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, median of {options.rounds} rounds", flush=True
    )
    for model in options.networks:
        compare_arrays(model, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        if options.files and find_spec("openerf") is None:
            print("openerf is not installed: `pip install --no-deps openerf` adds it to the comparison")
        elif options.files:
            write_files(folder)
            for name in options.files:
                compare_files(name, folder, options.rounds)
    if options.commands:
        with tempfile.TemporaryDirectory() as folder:
            compare_commands(options, Path(folder))
    compare_jobs(options)


if __name__ == "__main__":
    main()
