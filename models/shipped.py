"""Weights that come with the package: small networks trained on phantoms, each with a card that says how.

They show what training does to a receptive field. They have never seen a patient and find nothing in one.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "trained"


def shipped_weights(name: str) -> Path | None:
    """The file of a network's weights, None where there is none."""
    path = FOLDER / f"{name}.safetensors"
    return path if path.is_file() else None


def shipped_card(name: str) -> dict[str, Any]:
    """How shipped weights were trained, and what they reach; empty where there are none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
