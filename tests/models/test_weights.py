"""Weights: public naming, strictness, and files that are not to be trusted."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erf.models import WeightsError, create_model


def to_hct_repository(state: dict[str, Tensor], conv_stages: int) -> dict[str, Tensor]:
    """Our keys in the naming of whiterabbit-ai/hct, written down from its published key list."""
    return {_in_hct_repository(key, conv_stages): value for key, value in state.items()}


def _in_hct_repository(key: str, conv_stages: int) -> str:
    head, block, *tail = key.split(".")
    if not head.startswith("stage"):
        return key.replace("stem.", "conv_stages.first_conv.").replace("final.norm.", "final_bn.")
    number = int(head.removeprefix("stage")) - 1
    kind, number = ("conv", number) if number < conv_stages else ("ac", number - conv_stages)
    names = {"shortcut": ["downsample", "0"], "attention": ["performer_attention"]}
    tail = names.get(tail[0], [tail[0]]) + tail[1:]
    return f"{kind}_stages.layer_list.{number}.{block}.{'.'.join(tail)}"


def to_gmic_repository(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys in the naming of nyukat/GMIC, with a few of the other networks of that checkpoint."""
    names = {
        "conv_stages.": "ds_net.",
        "final_bn.": "ds_net.final_bn.",
        "saliency.": "left_postprocess_net.gn_conv_last.",
    }
    renamed = {}
    for key, value in to_hct_repository(state, 5).items():
        ours, theirs = next(pair for pair in names.items() if key.startswith(pair[0]))
        renamed[theirs + key.removeprefix(ours)] = value
    others = ("dn_resnet.conv1.weight", "mil_attn_V.weight", "classifier_linear.weight", "fusion_dnn.weight")
    return renamed | {name: torch.zeros(2) for name in others}


def save(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (key, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["gmic", "hct-nystrom", "swin-tiny"])
def test_our_own_state_dict_comes_back(tmp_path: Path, name: str, suffix: str) -> None:
    model = create_model(name, seed=5)
    path = save(model.state_dict(), tmp_path / f"w{suffix}")
    assert_same(create_model(name, path, seed=6), model)


@pytest.mark.parametrize(("name", "conv_stages"), [("gmic", 5), ("hct", 3)])
def test_naming_of_the_hct_repository(tmp_path: Path, name: str, conv_stages: int) -> None:
    model = create_model(name, seed=5)
    state = to_hct_repository(model.state_dict(), conv_stages)
    # Spot checks of the published naming itself.
    assert "conv_stages.first_conv.weight" in state
    assert "conv_stages.layer_list.0.0.downsample.0.weight" in state
    if name == "hct":
        assert "ac_stages.layer_list.1.1.performer_attention.fast_attention.projection_matrix" in state
        assert "ac_stages.layer_list.0.0.performer_attention.to_q.bias" in state
    assert_same(create_model(name, save(state, tmp_path / "w.pt"), seed=6), model)


def test_other_numbers_of_stages_are_mapped_too(tmp_path: Path) -> None:
    model = create_model("hct", seed=5, conv_stages=2)
    path = save(to_hct_repository(model.state_dict(), 2), tmp_path / "w.pt")
    assert_same(create_model("hct", path, seed=6, conv_stages=2), model)


def test_naming_of_the_gmic_repository(tmp_path: Path) -> None:
    model = create_model("gmic-nyu", seed=5)
    state = to_gmic_repository(model.state_dict())
    assert "left_postprocess_net.gn_conv_last.weight" in state
    assert "ds_net.layer_list.4.1.conv2.weight" in state
    assert sum(key.startswith(("ds_net", "left_post")) for key in state) == 132  # as in the published checkpoint
    assert_same(create_model("gmic-nyu", save(state, tmp_path / "w.p"), seed=6), model)


def test_wrappers_are_opened(tmp_path: Path) -> None:
    model = create_model("gmic", seed=5)
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    assert_same(create_model("gmic", path, seed=6), model)


def test_every_misfit_is_named(tmp_path: Path) -> None:
    state = create_model("gmic").state_dict()
    del state["stem.weight"], state["stage2.0.bn1.bias"]
    state["surprise"], state["other.surprise"] = torch.zeros(1), torch.zeros(1)
    state["classifier.weight"] = torch.zeros(3, 256)
    state["stage1.0.conv1.weight"] = state["stage1.0.conv1.weight"] * float("nan")
    with pytest.raises(WeightsError) as caught:
        create_model("gmic", save(state, tmp_path / "w.pt"))
    message = str(caught.value)
    for part in (
        "do not fit GMIC",
        "missing: stem.weight, stage2.0.bn1.bias",
        "unexpected: surprise, other.surprise",
        "wrong shape: classifier.weight (found (3, 256), expected (2, 256))",
        "not finite: stage1.0.conv1.weight",
    ):
        assert part in message


class Bomb:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path, target = tmp_path / "w.pt", tmp_path / "ran"
    torch.save({"stem.weight": Bomb(target)}, path)
    with pytest.raises(WeightsError, match=r"w.pt refused: it asks to run \S+, expected tensors only"):
        create_model("gmic", path)
    assert not target.exists()
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(WeightsError):
        create_model("gmic", path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".pt", b"", "cannot be read"),
        (".pt", b"no weights", "refused|cannot be read"),
        (".safetensors", b"no weights", "cannot be read"),
        (".pt", None, "not found"),
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, suffix: str, content: bytes | None, message: str) -> None:
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        create_model("gmic", path)
    assert "\n" not in str(caught.value)


def test_something_else_than_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="hold list, expected a state dict of tensors"):
        create_model("gmic", tmp_path / "w.pt")
