"""Weights that come with the package: they fit, and do what their cards say."""

import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from erf.cli import app
from erf.images import Framing, load_images
from erf.models import create_model, shipped_card, shipped_weights
from erf.models.shipped import FOLDER

NAMES = ("def-gmic", "gmic", "hct")


def test_three_networks_come_with_weights() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        f"{name}.{kind}" for name in NAMES for kind in ("json", "safetensors")
    ]
    assert shipped_weights("unet") is None
    assert shipped_card("unet") == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_how_and_how_well(name: str) -> None:
    card = shipped_card(name)
    assert card["command"].startswith(f"erf train --model {name} --preset phantom-small")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", card["date"])
    auc = card["held_out"]["auc"]
    assert 0.6 < auc["low"] < auc["value"] < auc["high"]
    assert card["held_out"]["seed"] != card["seed"]
    path = shipped_weights(name)
    assert path is not None
    assert path.stat().st_size < 7e6


@pytest.mark.parametrize("name", NAMES)
def test_card_and_weights_belong_together(name: str) -> None:
    """The score of the first held-out phantom is that of the card.

    It is rounded there to 4 digits, and sums of a million terms in float32 come in another order on another machine.
    """
    known = shipped_card(name)["held_out"]
    model = create_model(name, shipped_weights(name))
    from erf.datasets import load_examples

    image = load_examples("phantom", n=known["phantoms"], seed=known["seed"]).examples[0].image
    pixels = torch.from_numpy(Framing((3328, 2560)).apply(image, image.decode()).pixels)[None]
    with torch.inference_mode():
        found = float(model(pixels).softmax(1)[0, 1])
    assert found == pytest.approx(known["first_scores"][0], abs=1e-3)


def test_the_command_takes_them_unless_it_is_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erf.storage import load

    monkeypatch.chdir(tmp_path)
    common = ["compute", "-m", "gmic", "--size", "96x80", "-n", "2", "--no-picture", "--device", "cpu"]
    for name, further, words in (
        ("default", [], "shipped weights, trained on phantoms"),
        ("same", ["--weights", "shipped"], "shipped weights, trained on phantoms"),
        ("none", ["--weights", "none"], "untrained, seed 0"),
        ("options", ["--model-arg", "classes=2"], "untrained, seed 0"),
    ):
        result = CliRunner().invoke(app, [*common, *further, "-o", f"{name}.h5"])
        assert result.exit_code == 0, result.output
        assert ("--weights none gives the untrained network" in result.output) == (name in ("default", "same"))
        assert load(tmp_path / f"{name}.h5").provenance.weights_text == words
    sums = [load(tmp_path / f"{name}.h5").profiles["abs"].small.sum() for name in ("default", "same", "none")]
    assert sums[0] == sums[1] != sums[2]
    origin = load(tmp_path / "default.h5").provenance
    assert origin.weights == "shipped/gmic.safetensors"
    assert len(origin.weights_sha256) == 64
    result = CliRunner().invoke(app, ["compute", "-m", "unet", "--weights", "shipped"])
    assert result.exit_code == 2
    assert "no weights are shipped for it" in " ".join(result.output.split())


def test_images_of_the_seed_are_not_those_of_the_training() -> None:
    """The held-out phantoms differ from those of the training's seed, image by image."""
    known = shipped_card("hct")
    held_out, trained = (
        [image.decode().sha256 for image in load_images("phantom", n=8, seed=seed, size=(104, 80)).images]
        for seed in (known["held_out"]["seed"], known["seed"])
    )
    assert not set(held_out) & set(trained)
    assert json.loads((FOLDER / "hct.json").read_text()) == known
