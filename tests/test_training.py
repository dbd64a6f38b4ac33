"""Training: what is fed, how weights are moved, and that a stop changes nothing."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn
from typer.testing import CliRunner

from erf.box import Box
from erf.cli import app
from erf.datasets import Example, ExampleSet, Finding, load_examples, split_by_patient
from erf.errors import CheckpointError, InputError, InterruptedRunError, LayerError, TrainingError
from erf.images import Decoded, Framing, Image
from erf.images.image import Placement
from erf.models import create_model, load_weights, reorthogonalise
from erf.training import PRESETS, Folder, Plan, Recipe, Stage, State, Training, predict, task_of
from erf.training.asam import at_sharpest
from erf.training.batches import Feed
from erf.training.recipe import learning_rate
from erf.training.tasks import frame_mask
from tests.agreement import assert_gradients_agree

SIZE = (104, 80)


def example(name: str, pixels: np.ndarray, label: str, **more: Any) -> Example:
    return Example(Image(name, name, lambda: Decoded(pixels, name), patient_id=name), (label,), **more)


class Tiny(nn.Module):
    """Two convolutions with batch norm and dropout; logits (N, 2)."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 5, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 8, 5, 2)
        )
        self.head = nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


def tiny(seed: int = 0, outputs: int = 2) -> Tiny:
    torch.manual_seed(seed)
    return Tiny(outputs)


RECIPE = Recipe(
    "test",
    (Stage("patch", 2, 4, 1e-2, patch=32, patches=2), Stage("image", 2, 3, 1e-3)),
    noise=0.05,
)


@pytest.fixture(scope="module")
def phantoms() -> ExampleSet:
    found = load_examples("phantom", n=12, size=SIZE)
    return replace(found, examples=split_by_patient(found.examples, (2, 1, 0)))


def plan(phantoms: ExampleSet, recipe: Recipe = RECIPE, **more: Any) -> Plan:
    return Plan(recipe, phantoms.of_split("train"), phantoms.of_split("val"), Framing(SIZE), device="cpu", **more)


def run(folder: Path, given: Plan, model: nn.Module | None = None, resume: bool = False, **more: Any) -> State:
    with Folder(folder, resume) as opened:
        return Training(model or tiny(), given, opened, {"model": "tiny"}, **more).run()


# Recipes


def test_presets_are_those_of_the_papers() -> None:
    patch, image = PRESETS["hct-paper"].stages
    assert (patch.patch, patch.epochs, patch.batch_size, patch.lr) == (512, 80, 160, 6e-4)
    assert (image.patch, image.epochs, image.batch_size, image.lr) == (0, 80, 32, 2e-5)
    assert (PRESETS["hct-paper"].optimiser, PRESETS["hct-paper"].rho) == ("asam", 0.05)
    segmentation, labels = PRESETS["srb-segmentation"], PRESETS["srb-multilabel"]
    assert (segmentation.stages[0].epochs, segmentation.stages[0].lr, segmentation.weight_decay) == (150, 1e-3, 1e-4)
    assert (labels.schedule, labels.decay_epochs, labels.stages[0].lr, labels.balance) == ("steps", 20, 1e-3, True)
    assert PRESETS["magnification"].stages[0].epochs == 300


def test_rates_follow_their_schedules() -> None:
    stage = Stage("image", 60, 1, 2.0)
    rates = [learning_rate(PRESETS["hct-paper"], stage, step, 100) for step in (0, 25, 50, 100)]
    assert rates == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0])
    assert [learning_rate(PRESETS["srb-multilabel"], stage, step, 600) for step in (0, 199, 200, 599)] == pytest.approx(
        [2, 2, 0.2, 0.02]
    )
    assert learning_rate(PRESETS["srb-segmentation"], stage, 99, 100) == 2


def test_a_recipe_is_changed_by_name() -> None:
    changed = PRESETS["hct-paper"].changed({"epochs": 3, "patch.lr": 1, "optimiser": "adam"})
    assert [(stage.epochs, stage.lr) for stage in changed.stages] == [(3, 1.0), (3, 2e-5)]
    assert changed.optimiser == "adam"
    assert [stage.name for stage in changed.without(("image",)).stages] == ["image"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1}, "the recipe has no 'rate'; expected one of"),
        ({"body.epochs": 1}, r"the recipe has no 'body\.epochs'"),
        ({"epochs": 1.5}, r"epochs=1\.5; expected int"),
        ({"epochs": 0}, "epochs, batch size, patches and learning rate must be above 0"),
        ({"optimiser": "sgd"}, "optimiser 'sgd' not known; expected one of adam, asam"),
    ],
)
def test_what_a_recipe_does_not_take(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PRESETS["hct-paper"].changed(change)


# What is fed


def feed(examples: ExampleSet, stage: Stage, frame: tuple[int, int], **recipe: Any) -> Feed:
    given = Recipe("test", (stage,), **({"flip": False} | recipe))
    return Feed(examples, Framing(frame, normalisation="none"), task_of(given, examples.classes), given, stage, 0, 5)


def test_positive_patches_are_centred_on_boxes_and_negative_ones_lie_in_tissue() -> None:
    """Pixels hold their own number, so that a patch tells where it was cut."""
    grid = np.arange(40 * 60, dtype=np.float32).reshape(1, 40, 60)
    half = grid * (np.arange(60) < 20)
    examples = ExampleSet(
        (
            example("p", grid, "ill", findings=(Finding(Box(10, 30, 14, 36)),)),
            example("edge", grid, "ill", findings=(Finding(Box(0, 0, 2, 2)),)),
            example("n", half, "well"),
            example("ill without a box", grid, "ill"),
        ),
        ("well", "ill"),
    )
    stage = Stage("patch", 1, 4, 1.0, patch=8, patches=2)
    fed = feed(examples, stage, (40, 60))
    assert fed.steps == 2  # six patches of the three usable images, four in a batch
    seen: dict[str, list[np.ndarray]] = {}
    for batch in fed.batches(0, 0, workers=0):
        patches = iter(batch.pixels)
        for name in batch.names:
            seen.setdefault(name, []).extend(next(patches).numpy() for _ in range(2))
    assert set(seen) == {"p", "edge", "n"}
    for patch in seen["p"]:  # the box's middle is (11.5, 32.5): rows 8 to 15 and columns 28 to 35 hold it in theirs
        np.testing.assert_array_equal(patch[0], grid[0, 8:16, 28:36])
    for patch in seen["edge"]:
        np.testing.assert_array_equal(patch[0], grid[0, :8, :8])
    for patch in seen["n"]:
        assert patch[0, 4, 4] > 0 or patch[0].max() > 0


def test_a_box_is_found_where_its_image_was_padded_or_scaled() -> None:
    """A bright box of a small image lies in the patch's middle also in a larger frame."""
    pixels = np.zeros((1, 32, 24), np.float32)
    pixels[0, 10:14, 6:10] = 1
    examples = ExampleSet((example("p", pixels, "ill", findings=(Finding(Box(10, 6, 14, 10)),)),), ("well", "ill"))
    stage = Stage("patch", 1, 1, 1.0, patch=16)
    (padded,) = feed(examples, stage, (64, 64)).batches(0, 0, 0)
    np.testing.assert_array_equal(np.argwhere(padded.pixels[0, 0].numpy()).mean(0), [7.5, 7.5])
    given = feed(examples, stage, (64, 48))
    (scaled,) = replace(given, framing=Framing((64, 48), normalisation="none", fit="letterbox")).batches(0, 0, 0)
    weights = scaled.pixels[0, 0].numpy()
    y, x = (np.indices(weights.shape) * weights).sum((1, 2)) / weights.sum()
    assert (y, x) == pytest.approx((7.5, 7.5), abs=0.6)  # the box's own middle falls between pixels


def test_batches_depend_on_seed_epoch_and_number_only() -> None:
    examples = ExampleSet(
        tuple(example(str(n), np.full((1, 8, 8), n, np.float32), "ab"[n % 2]) for n in range(7)), ("a", "b")
    )
    stage = Stage("image", 2, 3, 1.0)
    fed = feed(examples, stage, (8, 8), noise=1.0)
    first, again, threaded = (list(fed.batches(0, 0, workers)) for workers in (0, 0, 3))
    assert [batch.names for batch in first] == [batch.names for batch in threaded]
    for one, other, third in zip(first, again, threaded, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.pixels, third.pixels)
    late = list(fed.batches(0, 2, 1))
    assert torch.equal(late[0].pixels, first[2].pixels)
    later = list(fed.batches(1, 0, 0))
    assert sorted(name for batch in later for name in batch.names) == sorted(map(str, range(7)))
    assert [batch.names for batch in later] != [batch.names for batch in first]
    noise = first[0].pixels - torch.tensor([float(name) for name in first[0].names])[:, None, None, None]
    assert noise.std() == pytest.approx(1, abs=0.2)


def test_processes_share_a_batch_and_have_the_same_number_of_images() -> None:
    examples = ExampleSet(tuple(example(str(n), np.zeros((1, 4, 4)), "ab"[n % 2]) for n in range(7)), ("a", "b"))
    whole = feed(examples, Stage("image", 1, 4, 1.0), (4, 4))
    parts = [[b.names for b in replace(whole, part=(rank, 2)).batches(0, 0, 0)] for rank in range(2)]
    together = [b.names for b in whole.batches(0, 0, 0)]
    assert [len(names) for names in parts[0]] == [len(names) for names in parts[1]] == [2, 2]
    assert set(parts[0][0]) | set(parts[1][0]) == set(together[0])


def test_masks_are_turned_with_their_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 200, (1, 10, 12)).astype(np.uint8)
    Pillow.fromarray((pixels[0] > 100).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    one = example("i", pixels, "x", mask=tmp_path / "mask.png")
    examples = ExampleSet((one,), ("background", "object"))
    fed = feed(examples, Stage("image", 1, 1, 1.0), (16, 14), flip=True, task="masks")
    turned = set()
    for epoch in range(12):
        (batch,) = fed.batches(epoch, 0, 0)
        np.testing.assert_array_equal(batch.targets[0].numpy(), batch.pixels[0, 0].numpy() > 100)
        turned.add(batch.targets.numpy().tobytes())
    assert len(turned) == 4


def test_a_mask_is_scaled_to_the_nearest_pixel() -> None:
    mask = np.arange(6).reshape(2, 3)
    doubled = frame_mask(mask, Placement((2.0, 2.0), 1, -2), (5, 5))
    np.testing.assert_array_equal(
        doubled, [[0] * 5, [1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [4, 4, 5, 5, 0], [4, 4, 5, 5, 0]]
    )


def test_a_mask_is_reduced_by_its_middle_pixels() -> None:
    """At half the size, pixel r of the frame is centred between pixels 2 r and 2 r + 1 of the file: the latter is taken."""
    reduced = frame_mask(np.arange(16).reshape(4, 4), Placement((0.5, 0.5)), (2, 2))
    np.testing.assert_array_equal(reduced, [[5, 7], [13, 15]])


def test_patches_larger_than_the_frame_are_refused(phantoms: ExampleSet) -> None:
    with pytest.raises(InputError, match=r"patches of 200 pixels from a frame of 104x80; choose a larger"):
        feed(phantoms, Stage("patch", 1, 1, 1.0, patch=200), SIZE)


# Losses


def test_balanced_labels_weigh_the_same() -> None:
    """Three labels of eight positive: by hand, each positive counts 4/3, each negative 4/5."""
    targets = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0]])
    outputs = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    each = nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    expected = (each * torch.where(targets > 0, 4 / 3, 4 / 5)).mean()
    balanced = task_of(replace(RECIPE, task="labels", balance=True), "abcd")
    torch.testing.assert_close(balanced.loss(outputs, targets), expected)
    plain = task_of(replace(RECIPE, task="labels"), "abcd")
    torch.testing.assert_close(plain.loss(outputs, targets), each.mean())
    assert balanced.loss(outputs, torch.ones(2, 4)).isfinite()


def test_outputs_of_another_shape_are_named() -> None:
    with pytest.raises(LayerError, match=r"the network gives \(2, 3\), expected \(N, 2\)"):
        task_of(RECIPE, "ab").loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


# ASAM


def test_asam_moves_weights_as_its_paper_says() -> None:
    """f(w) = (a w1² + b w2²)/2 for weights, c b²/2 for a bias: the step is rho T² g / |T g| with T = |w| + eta, or 1."""
    network = nn.Linear(2, 1).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -2.0]]))
        network.bias.fill_(3.0)
    factors, rho, eta = torch.tensor([2.0, 0.5], dtype=torch.float64), 0.3, 0.01

    def backward() -> None:
        loss = (factors * network.weight.square()).sum() / 2 + 0.25 * network.bias.square().sum() / 2
        loss.backward()

    backward()
    gradient = np.array([2 * 0.5, 0.5 * -2.0, 0.25 * 3])
    scale = np.array([0.5 + eta, 2 + eta, 1])
    moved = np.array([0.5, -2.0, 3.0]) + rho * scale**2 * gradient / np.linalg.norm(scale * gradient)
    with at_sharpest(network, rho, eta):
        assert network.weight.grad is None or not network.weight.grad.any()
        found = [*network.weight.detach()[0].tolist(), network.bias.item()]
        np.testing.assert_allclose(found, moved, rtol=1e-12)
        backward()
    assert network.weight.tolist() == [[0.5, -2.0]]
    assert network.bias.item() == 3
    assert network.weight.grad is not None
    assert network.bias.grad is not None
    assert_gradients_agree(network.weight.grad[0], factors.numpy() * moved[:2], rtol=1e-12)
    assert_gradients_agree(network.bias.grad.item(), 0.25 * moved[2], rtol=1e-12)


def test_running_statistics_are_taken_once_with_asam() -> None:
    network: Any = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    pixels = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    network(pixels).square().sum().backward()
    before = network[1].running_mean.clone()
    with at_sharpest(network, 0.5):
        network(pixels).square().sum().backward()
    assert torch.equal(network[1].running_mean, before)
    assert network[1].momentum == 0.1


# The loop


def test_a_network_learns_and_the_folder_tells_how(phantoms: ExampleSet, tmp_path: Path) -> None:
    """Bright and dark images are told apart after a few updates."""
    rng = np.random.default_rng(0)
    bright = [example(f"{n}", rng.normal(n % 2, 0.3, (1, 24, 24)), "ab"[n % 2], split="train") for n in range(16)]
    examples = ExampleSet(tuple(bright), ("a", "b"))
    recipe = Recipe("test", (Stage("image", 6, 4, 3e-2),))
    given = Plan(recipe, examples, examples, Framing((24, 24), normalisation="none"), device="cpu")
    model = tiny()
    state = run(tmp_path / "run", given, model)
    assert state.epochs[-1]["validation_auc"] == 1
    assert state.epochs[-1]["loss"] < 0.5 * state.epochs[1]["loss"]
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "epochs.json", "final.safetensors", "log.csv", "run.json",
    ]  # fmt: skip
    names = [f"{n:03d}-{'image' if n else 'initial'}.safetensors" for n in range(7)]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + 6 * 4
    assert json.loads((folder / "epochs.json").read_text()) == state.epochs
    assert json.loads((folder / "run.json").read_text())["classes"] == ["a", "b"]
    loaded = tiny(1)
    load_weights(loaded, folder / "final.safetensors")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key])


def log(folder: Path) -> str:
    return (folder / "log.csv").read_text() + (folder / "final.safetensors").read_bytes().hex()


@pytest.mark.parametrize("optimiser", ["adam", "asam"])
def test_a_stop_after_any_update_changes_nothing(phantoms: ExampleSet, tmp_path: Path, optimiser: str) -> None:
    given = plan(phantoms, replace(RECIPE, optimiser=optimiser))
    whole = tmp_path / "whole"
    updates = run(whole, given).updates
    assert updates == 2 * 4 + 2 * 3
    for stop_after in (1, 4, 6, 8, 9, 11, 13):  # epochs end after 4, 8 and 11
        folder = tmp_path / str(stop_after)
        count = 0

        def stop() -> bool:
            nonlocal count
            count += 1
            return count >= stop_after  # noqa: B023

        with pytest.raises(InterruptedRunError, match="stopped after"):
            run(folder, given, stop=stop)
        run(folder, given, tiny(9), resume=True)
        assert log(folder) == log(whole), stop_after


def test_a_network_that_is_looked_at_learns_the_same(phantoms: ExampleSet, tmp_path: Path) -> None:
    """`after_epoch` gets the network in eval mode; what it draws at random does not reach the training."""
    given = plan(phantoms)
    run(tmp_path / "alone", given)

    def look(model: nn.Module, row: Any) -> None:
        assert not model.training
        torch.randn(3)

    run(tmp_path / "watched", given, after_epoch=look)
    assert log(tmp_path / "watched") == log(tmp_path / "alone")


def test_parts_of_a_batch_add_up(phantoms: ExampleSet, tmp_path: Path) -> None:
    """Without batch norm and dropout, gradients of parts are those of the whole, to float32's rounding."""

    def network() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(1, 4, 5, 4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    losses = []
    for micro in (0, 1, 2):
        state = run(tmp_path / str(micro), plan(phantoms, micro_batch=micro), network())
        losses.append([row["loss"] for row in state.steps])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=2e-5)


def test_mixed_precision_is_near_and_leaves_copies_alone(phantoms: ExampleSet, tmp_path: Path) -> None:
    """bfloat16 has 8 bits: the first losses differ by less than 2 %, and are not the same."""
    seen = []

    def look(model: Any, row: Any) -> None:
        copied = copy.deepcopy(model)
        copied.head.weight.data.zero_()
        seen.append(torch.equal(copied(torch.ones(1, 1, *SIZE))[0], copied.head.bias))

    exact = run(tmp_path / "exact", plan(phantoms)).steps
    mixed = run(tmp_path / "mixed", plan(phantoms, precision="bfloat16"), after_epoch=look).steps
    first, other = exact[0]["loss"], mixed[0]["loss"]
    assert first != other
    assert other == pytest.approx(first, rel=0.02)
    assert seen == [True] * len(seen)  # the copy's own head was used: its logits are its bias alone
    with pytest.raises(InputError, match="precision 'float16' not known; expected float32 or bfloat16"):
        run(tmp_path / "half", plan(phantoms, precision="float16"))


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path: Path) -> None:
    pixels = [np.full((1, 24, 24), value, np.float32) for value in (1, 2, 1e38, 3)]
    examples = ExampleSet(tuple(example(f"i{n}.png", one, "ab"[n % 2]) for n, one in enumerate(pixels)), ("a", "b"))
    recipe = Recipe("test", (Stage("image", 1, 1, 1e-3),), flip=False)
    given = Plan(recipe, examples, None, Framing((24, 24), normalisation="none"), device="cpu")
    first = nn.Conv2d(1, 2, 5)
    nn.init.constant_(first.weight, 10.0)
    network = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in image, epoch 1, step \d \(images: i2\.png\)"):
        run(tmp_path / "run", given, network)


def test_another_command_does_not_go_on(phantoms: ExampleSet, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "run", plan(phantoms), stop=lambda: True)
    with pytest.raises(CheckpointError, match="holds a training"):
        run(tmp_path / "run", plan(phantoms))
    with pytest.raises(CheckpointError, match="holds a training with other recipe, seed"):
        run(tmp_path / "run", plan(phantoms, replace(RECIPE, noise=0.1), seed=1), resume=True)
    (tmp_path / "run" / "state.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged"):
        run(tmp_path / "run", plan(phantoms), resume=True)


def test_a_stage_without_progress_ends(phantoms: ExampleSet, tmp_path: Path) -> None:
    recipe = Recipe("test", (Stage("image", 50, 8, 1e-12),), patience=2)
    state = run(tmp_path / "run", plan(phantoms, recipe))
    assert len(state.epochs) < 30
    losses = [row["validation_loss"] for row in state.epochs[1:]]
    assert min(losses[-2:]) >= min(losses[:-2])


def test_spectral_blocks_stay_orthogonal(tmp_path: Path) -> None:
    """SRB_A, re-orthogonalised after every update, on masks; without it the updates leave the orthogonal matrices."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(4):
        pixels = rng.integers(0, 255, (3, 32, 32)).astype(np.uint8)
        Pillow.fromarray((pixels[0] > 128).astype(np.uint8) * 255).save(tmp_path / f"{number}.png")
        examples.append(example(str(number), pixels, "x", mask=tmp_path / f"{number}.png"))
    known = ExampleSet(tuple(examples), ("background", "object"))
    recipe = PRESETS["srb-segmentation"].changed({"epochs": 2, "batch_size": 2})
    given = Plan(recipe, known, known, Framing((32, 32), 3, "unit"), device="cpu")
    off = []
    for after in (reorthogonalise, None):
        model = create_model("unet-star", size=(32, 32), block="srb-a", places=("before-up4",))
        state = run(tmp_path / f"run-{after is None}", given, model, after_update=after)
        matrices = [value for key, value in model.state_dict().items() if key.endswith((".p", ".q"))]
        assert matrices
        off.append(max(float((one @ one.T - torch.eye(len(one))).abs().max()) for one in matrices))
        assert 0 < state.epochs[-1]["validation_mean_iou"] < 1
    assert off[0] < 1e-5
    assert off[1] > 1e-4


def test_predictions_are_those_of_the_network_in_eval_mode(phantoms: ExampleSet) -> None:
    model = tiny().train()
    chosen = phantoms.of_split("val")
    found = predict(
        model, chosen, task_of(RECIPE, phantoms.classes), Framing(SIZE), kind="classes", device=torch.device("cpu")
    )
    assert model.training
    model.eval()
    for row, one in zip(found.rows, chosen, strict=True):
        pixels = torch.from_numpy(Framing(SIZE).apply(one.image, one.image.decode()).pixels)[None]
        with torch.no_grad():
            expected = model(pixels).softmax(1)[0]
        np.testing.assert_allclose(row.scores, expected, rtol=1e-5)
        assert row.truth == one.labels
        assert math.isnan(row.finding_size) == (not one.findings)


# The command


COMMAND = (
    *("train", "-m", "gmic", "--size", "104x80", "-n", "16", "--device", "cpu", "--workers", "1"),
    *("--set", "patch.patch=48", "--set", "epochs=2", "--set", "patch.batch_size=16"),
)


def test_a_killed_training_resumes_to_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at some update, with a state saved after every epoch; the log is that of a training without a stop."""
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "erf", *COMMAND, "-o", "killed"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    state = tmp_path / "killed" / "state.pt"
    while killed.poll() is None and not state.exists():
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert state.exists()
    for words in (["-o", "whole"], ["-o", "killed", "--resume"]):
        result = CliRunner().invoke(app, [*COMMAND, *words])
        assert result.exit_code == 0, result.output
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
