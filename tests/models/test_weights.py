"""Weights: public naming, strictness, and files that are not to be trusted."""

import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erf.models import WeightsError, create_model, load_weights


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


def load(state: Any, path: Path, model: nn.Module | None = None, **how: Any) -> Any:
    """A network with the weights of a file that `torch.save` has made of something."""
    torch.save(state, path, **how)
    model = model or nn.Linear(3, 2)
    load_weights(model, path)
    return model


def state_with(**more: Any) -> dict[str, Any]:
    return {"weight": torch.randn(2, 3), "bias": torch.zeros(2)} | more


WEIGHT = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "weight",
    [
        WEIGHT.double(),
        WEIGHT.half(),
        WEIGHT.bfloat16(),
        WEIGHT.T.contiguous().T,
        torch.arange(600.0).reshape(20, 30)[3:5, 2:5],
        torch.ones(1).expand(2, 3),
        nn.Parameter(WEIGHT),
    ],
    ids=["double", "half", "bfloat16", "transposed", "slice", "expanded", "parameter"],
)
def test_values_arrive_however_they_lie_in_the_file(weight: Tensor, is_old: bool, tmp_path: Path) -> None:
    model = load(state_with(weight=weight), tmp_path / "w.pt", _use_new_zipfile_serialization=not is_old)
    assert torch.equal(model.weight, weight.float())


def test_tensors_of_one_storage_and_attributes_beside_weights(tmp_path: Path) -> None:
    source, other = nn.LSTM(3, 4), nn.LSTM(3, 4)
    setattr(source.weight_ih_l0, "note", "kept by torch.save")  # noqa: B010 (tensors declare no such attribute)
    optimiser = torch.optim.Adam(source.parameters()).state_dict()
    load({"epoch": 3, "model": source.state_dict(), "optimizer": optimiser, "ema": None}, tmp_path / "w.pt", other)
    assert_same(other, source)


def test_prefixes_of_wrappers_are_left_out(tmp_path: Path) -> None:
    state = {f"_orig_mod.module.{key}": value for key, value in state_with().items()}
    assert torch.equal(load(state, tmp_path / "w.pt").weight, state["_orig_mod.module.weight"])
    inner = nn.ModuleDict({"module": nn.Linear(3, 2)})
    load(inner.state_dict(), tmp_path / "w.pt", inner)  # a network's own name is no prefix


class Subclass(Tensor):
    pass


def several_views() -> dict[str, Tensor]:
    complex_ = torch.randn(2, 3, dtype=torch.complex64)
    return {"conj": complex_.conj(), "neg": complex_.conj().imag}


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (WEIGHT.to_sparse(), "no plain values: weight (sparse)"),
        (WEIGHT.to("meta"), "no plain values: weight (without values"),
        (several_views()["conj"], "no plain values: weight (a view (conj))"),
        (several_views()["neg"], "no plain values: weight (a view (neg))"),
        (WEIGHT.to(torch.complex64), "wrong type: weight (found complex64, expected float32)"),
        (WEIGHT.to(torch.int8), "wrong type: weight (found int8, expected float32)"),
        (WEIGHT.to(torch.int64), "wrong type: weight (found int64, expected float32)"),
        (WEIGHT > 0, "wrong type: weight (found bool, expected float32)"),
        (WEIGHT.to(torch.float8_e4m3fn), "wrong type: weight (found float8_e4m3fn, expected float32)"),
        (WEIGHT.double() * 1e300, "too large: weight (for float32)"),
        (WEIGHT / 0, "not finite: weight"),
        (WEIGHT.T, "wrong shape: weight (found (3, 2), expected (2, 3))"),
        (torch.ones(1).expand(10**6, 10**6), "wrong shape: weight (found (1000000, 1000000)"),
        (WEIGHT.as_subclass(Subclass), "refused: it asks to run tests.models.test_weights.Subclass"),
    ],
    ids=lambda value: "" if isinstance(value, Tensor) else value,
)
def test_tensors_that_are_no_weights(weight: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load(state_with(weight=weight), tmp_path / "w.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    weight = torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8)
    with pytest.raises(WeightsError, match=r"no plain values: weight \(quantised\)"):
        load(state_with(weight=weight), tmp_path / "w.pt")


def test_types_that_safetensors_has_beside_ours(tmp_path: Path) -> None:
    save_file(state_with(weight=WEIGHT.to(torch.float8_e5m2)), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"no plain values: weight \(F8_E5M2\)"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (state_with() | {"module.weight": WEIGHT}, "hold weight twice, as 'weight' and as 'module.weight'"),
        ({1: WEIGHT, "1": WEIGHT}, "hold 1 twice, as 1 and as '1'"),
        ({"model": state_with(), "ema": state_with()}, "several state dicts (model, ema); save the one that is meant"),
        (state_with() | {"model": state_with()}, "hold weight, bias next to a state dict under 'model'"),
        ({"weight": WEIGHT, "epoch": 3}, "hold a dictionary of weight, epoch, expected a state dict"),
        ({}, "missing: weight, bias"),
        (WEIGHT, "hold a single tensor, expected a state dict"),
        (nn.Linear(3, 2), "it asks to run torch.nn.modules.linear.Linear"),
    ],
    ids=["module", "numbers", "several", "beside", "other", "none", "tensor", "pickled"],
)
def test_contents_of_two_meanings_or_none(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load(content, tmp_path / "w.pt")
    assert message in str(caught.value)


def test_shared_parameters_take_one_value(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)})
        model["b"].weight = model["a"].weight
        return model

    state = tied().state_dict()
    load(state, tmp_path / "w.pt", tied())
    with pytest.raises(WeightsError, match=r"a\.weight took another value than the file has; the network shares it"):
        load(dict(state) | {"b.weight": WEIGHT}, tmp_path / "w.pt", tied())


def deflated(path: Path) -> None:
    """A few hundred bytes that would inflate to 40 MB."""
    torch.save(state_with(more=torch.zeros(10**7)), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)


def claiming(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(b"\x80\x02" + text)


def damaged(path: Path) -> None:
    """The first number of the weights is another one."""
    torch.save({"weight": WEIGHT + 1.5, "bias": torch.zeros(2)}, path)
    content, values = path.read_bytes(), (WEIGHT + 1.5).numpy().tobytes()
    assert content.count(values) == 1
    path.write_bytes(content.replace(values, b"\0" + values[1:-1] + b"?"))


def encrypted(path: Path) -> None:
    """Bit 0 of the flags of every entry, in both of its headers."""
    torch.save(state_with(), path)
    content = path.read_bytes()
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), content):
            at = found.start() + place
            content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    path.write_bytes(content)


def overlapping(path: Path) -> None:
    """All entries of the archive lie where the first does."""
    torch.save(state_with(), path)
    content = path.read_bytes()
    places = [found.start() + 42 for found in re.finditer(rb"PK\x01\x02", content)]
    for at in places[1:]:
        content = content[:at] + content[places[0] :][:4] + content[at + 4 :]
    path.write_bytes(content)


def large_directory(path: Path) -> None:
    """A file of a few blocks on disk whose table of contents would be 5 GB."""
    size = 5 * 2**30
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 100)
    end += struct.pack("<4sIQI", b"PK\x06\x07", 0, size + 100, 1)
    end += struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size + 100)
        file.write(end)


def with_index(index: bytes) -> Callable[[Path], object]:
    """A file of torch.save with another pickle in it."""

    def make(path: Path) -> None:
        torch.save(state_with(), path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, index if name.endswith("data.pkl") else entry)

    return make


def safetensors(*, length: int | None = None, **tensors: Any) -> Callable[[Path], object]:
    """A safetensors file with such a header, or one that claims another length."""
    header = json.dumps(tensors).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", length or len(header)) + header + bytes(32))


def claim(shape: object, begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def spread(step: int) -> bytes:
    """The index of a weight whose rows lie `step` numbers from each other, of six numbers in all."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        index = archive.read("archive/data.pkl")
    rows = b"K\x03K\x01\x86"  # strides (3, 1)
    assert index.count(rows) == 1
    return index.replace(rows, b"\x8a\x09" + step.to_bytes(9, "little", signed=True) + b"K\x01\x86")


def nested(depth: int) -> bytes:
    found: dict[str, Any] = {"model": 1}
    for _ in range(depth):
        found = {"model": found, "state_dict": found}
    return pickle.dumps(found, 2)


def five_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 2**30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (deflated, "is compressed, which torch.save does not do"),
        (damaged, "its check sum is wrong"),
        (Path.mkdir, "is a folder; expected a safetensors file"),
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("weights of a network"), "it is neither; expected a safetensors file"),
        (five_gigabytes, "it is neither"),
        (encrypted, "its entry w/data.pkl is encrypted"),
        (overlapping, "its check sum is wrong"),
        (large_directory, "its index is longer than 16777216 bytes"),
        (with_index(bytes(2**24 + 1)), "its index is longer than 16777216 bytes"),
        (with_index(nested(60)), "hold a dictionary of model, state_dict, expected a state dict"),
        (with_index(b"\x80\x04]\x8c\x01x\x93."), "it names a function by what is no text"),
        (with_index(spread(10**9)), "is spread over 4000000012 bytes; save a copy of it"),
        (with_index(spread(-3)), "no sizes or no values"),
        (with_index(spread(2**62)), "is spread over"),
        (with_index(spread(6)), "a tensor lies outside its storage of 24 bytes"),
        (with_index(b"\x80\x02cos\nsy\x1b[31mstem\n."), r"it asks to run os.sy\x1b[31mstem"),
        (safetensors(length=4 * 2**30), "its index is longer than 16777216 bytes"),
        (safetensors(weight=claim([2, 3], 8, 24)), "a tensor of (2, 3) F32 cannot lie in bytes 8 to 24"),
        (safetensors(weight=claim([-2, -3], 0, 24)), "a tensor of (-2, -3) F32 cannot lie"),
        (safetensors(weight=claim([2, 3], 10**12, 10**12 + 24), bias=claim([2], 0, 8)), "it ends too early"),
        (safetensors(weight=[2, 3]), "its index is none of safetensors"),
        (lambda path: path.write_bytes(b"\x0d" + bytes(7) + b'{"a":0,"a":0}'), "a name stands twice in its index"),
        (claiming(b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x01\x85R."), "a pickle, but not of torch.save"),
        (claiming(b"]r\xff\xff\xff\x7f."), "a pickle, but not of torch.save"),
        (claiming(b"]" * 100_000 + b"."), "a pickle, but not of torch.save"),
        (claiming(b"X\xff\xff\xff\x7fabc."), "cannot be read: expected 2147483647 bytes"),
        (claiming(b"cos\nsystem\nX\x04\0\0\0true\x85R."), "refused: it asks to run os.system"),
        (claiming(b"(I1\nios\nsystem\n."), "refused: it holds the instruction INST"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_claim_or_are_something_else(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    make(path)
    with pytest.raises(WeightsError) as caught:
        load_weights(nn.Linear(3, 2), path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_that_changes_while_it_is_read_is_refused(suffix: str, tmp_path: Path) -> None:
    """One that is cut short, in particular, which would end a process that has it mapped into memory."""
    path = tmp_path / f"w{suffix}"

    class Rewritten(nn.Linear):
        is_cut: bool

        def rename_key(self, key: str) -> str:
            path.write_bytes(
                path.read_bytes()[: -os.path.getsize(path) // 2] if self.is_cut else path.read_bytes() + b" "
            )
            return key

    for is_cut, message in ((True, "it ends too early"), (False, "it was changed meanwhile; try again")):
        model = Rewritten(300, 200)
        model.is_cut = is_cut
        save(dict(model.state_dict()), path)
        with pytest.raises(WeightsError, match=message):
            load_weights(model, path)


def test_a_pickle_of_many_instructions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of it might make a list."""
    with_index(b"\x80\x02" + b"]" * 2000 + b".")(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="hold list"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.pt")
    monkeypatch.setattr("erf.models.files.pickles._MOST_INSTRUCTIONS", 2001)
    with pytest.raises(WeightsError, match="it holds more than 2001 instructions"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.pt")


def test_messages_are_one_printable_line(tmp_path: Path) -> None:
    save_file({"a\x1b[2J\n\u202eb": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"unexpected: a\\x1b\[2J \\u202eb") as caught:
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    assert str(caught.value).isprintable()


def test_parts_of_a_larger_storage_come_alone(tmp_path: Path) -> None:
    """Of ten million numbers, six are read."""
    large = torch.zeros(10**7)
    large[5_000_000:5_000_006] = torch.arange(6.0)
    model = load(state_with(weight=large[5_000_000:5_000_006].view(2, 3)), tmp_path / "w.pt")
    assert torch.equal(model.weight, WEIGHT)
