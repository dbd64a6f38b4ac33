"""Convert finished trainings to the weights shipped with the package, with a card for each.

    scripts/train_shipped.sh
    python scripts/ship_weights.py runs/hct runs/gmic runs/def-gmic

Convolutions and matrices are stored in half precision, everything else in full; the scores on the card are those of the
shipped file, on phantoms of a seed not used in any training.
"""

import argparse
import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from erf.datasets import load_examples
from erf.evaluation.auc import estimate
from erf.images import Framing
from erf.models import create_model, model_card
from erf.models.shipped import FOLDER
from erf.training import PRESETS, predict, task_of
from erf.training.folder import pack_weights, read_about

HELD_OUT_SEED = 1

_KEPT = 4
"""Number of scores on the card, by which a test verifies that card and weights belong together."""


def main() -> None:
    """Convert the weights of every folder on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `erf train`")
    parser.add_argument("-n", type=int, default=200, help="held-out phantoms (default: 200)")
    options = parser.parse_args()
    for run in options.runs:
        ship(run, options.n)


def ship(run: Path, n: int) -> None:
    """Write NAME.safetensors and NAME.json for one training, evaluated on n held-out phantoms."""
    about = read_about(run)
    name = about["model"]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    tensors = {key: _halved(tensor) for key, tensor in load_file(run / "final.safetensors").items()}
    path.write_bytes(pack_weights(tensors, {"model": name, "card": f"{name}.json"}))
    found = _held_out(name, path, about, n)
    epochs = json.loads((run / "epochs.json").read_text())
    card = {
        "model": name,
        "what": f"{name} trained to tell phantoms with a finding from those without; it finds nothing in a patient",
        "command": about["command"],
        "data": f"{about['data']['n'] or 200} phantoms of seed {about['data']['seed']}, split {about['data']['split']} "
        f"by patient; {about['size'][0]}x{about['size'][1]} pixels",
        "recipe": about["recipe"],
        "seed": about["seed"],
        "updates": epochs[-1]["updates"],
        "seconds": round(sum(row.get("seconds", 0) for row in epochs)),
        "validation": {key: value for key, value in epochs[-1].items() if key.startswith("validation_")},
        "held_out": found,
        "device": "cuda" if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads",
        "versions": {"torch": version("torch"), "python": platform.python_version()},
        "date": datetime.now(UTC).date().isoformat(),
        "licence": "Apache-2.0, as the code; trained on generated images only",
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    auc = found["auc"]
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")


def _halved(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor


def _held_out(name: str, path: Path, about: dict[str, Any], n: int) -> dict[str, Any]:
    """Evaluate the weights on phantoms of another seed: AUC with intervals, and the first scores."""
    size = (about["size"][0], about["size"][1])
    examples = load_examples("phantom", n=n, seed=HELD_OUT_SEED, size=size)
    card = model_card(name)
    said = predict(
        create_model(name, path),
        examples,
        task_of(PRESETS["phantom-small"], examples.classes),
        Framing(size, card.in_channels, card.preprocessing.normalisation),
        kind="classes",
        device=torch.device("cpu"),
        workers=2,
    )
    found = asdict(estimate(said.truth == 1, said.scores[:, 1]))
    auc = {key: float(np.round(value, 4)) if isinstance(value, float) else value for key, value in found.items()}
    first = np.round(said.scores[:_KEPT, 1], 4).tolist()
    return {"phantoms": n, "seed": HELD_OUT_SEED, "auc": auc, "first_scores": first}


if __name__ == "__main__":
    main()
