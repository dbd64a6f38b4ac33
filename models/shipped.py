"""Weights included in the package: small networks trained on phantoms, each with a card that describes the training.

They demonstrate how training changes a receptive field. They were not trained on patients and detect nothing in them.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "trained"


def shipped_weights(name: str) -> Path | None:
    """Return the file of a network's shipped weights, or None."""
    path = FOLDER / f"{name}.safetensors"
    return path if path.is_file() else None


def shipped_card(name: str) -> dict[str, Any]:
    """Return the training settings and scores of shipped weights; empty if there are none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
