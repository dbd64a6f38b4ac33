"""Networks of transformers and MONAI, built offline from small configurations."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import erf
from erf.errors import AssumptionWarning, LayerError
from erf.models import ModelError, WeightsError, create_model, model_card
from tests.test_cli import call, complaint, in_an_empty_folder  # noqa: F401 (a fixture)

CONFIGS: dict[str, dict[str, Any]] = {
    "dinov2": {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 112},
    "dinov2_with_registers": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 112},
    "swinv2": {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 7, "image_size": 112},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is asked of the network, not even in vain."""
    asked: list[object] = []

    def refuse(*args: object) -> None:
        asked.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not asked


def folder(kind: str, **more: Any) -> Path:
    path = Path(kind)
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": kind, **CONFIGS.get(kind, {}), **more}))
    return path


def compute(network: Any, **settings: Any) -> erf.ERF:
    side = network.size[0]
    noise = np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32)
    return erf.compute(network, list(noise), device="cpu", progress=False, **settings)


@pytest.mark.parametrize(
    ("kind", "layer", "passed_over"),
    [
        ("dinov2", "encoder:last_hidden_state", "output:last_hidden_state"),
        ("dinov2_with_registers", "encoder:last_hidden_state", "output:last_hidden_state"),
        # Norms on the main path make all maps of stages and blocks cancel; the last that does not is that of an MLP.
        ("swinv2", "encoder.layers.1.blocks.1.output", "output:last_hidden_state"),
    ],
)
def test_networks_that_end_in_a_norm_give_a_true_field_by_default(kind: str, layer: str, passed_over: str) -> None:
    network = erf.build_network(f"hf:{folder(kind)}", seed=3)
    with pytest.warns(AssumptionWarning, match=f"layer '{layer}' is taken, .* before '{passed_over}'"):
        single = compute(network)
    assert single.provenance.layer == layer
    network.model.double()
    with pytest.warns(AssumptionWarning):
        double = compute(network)
    mean = double["all"].mean
    assert np.abs(single["all"].mean - mean).max() < 1e-3 * mean.max()
    # The unit right and below the middle has more gradient around it than noise, which would be spread evenly.
    y, x = (slice(round(center) - 28, round(center) + 28) for center in double.provenance.unit_center)
    assert mean[y, x].sum() / mean.sum() > 1.3 * mean[y, x].size / mean.size
    with pytest.raises(LayerError, match="sum to a constant"):
        compute(network, layer=passed_over)


def test_tokens_after_others_are_a_map() -> None:
    network = erf.build_network(f"hf:{folder('dinov2_with_registers')}")
    points = {point.name: point for point in network.mapped_layers()}
    traced = points["encoder:last_hidden_state"].trace
    assert traced.feature_shape == (48, 7, 7)
    assert "7x7 tokens after 5 others" in traced.layout.description


def test_weights_and_preprocessing_of_a_folder() -> None:
    path = folder("dinov2", architectures=["Dinov2ForImageClassification"], dtype="float16")
    one = create_model(f"hf:{path}", seed=1)
    assert type(one).__name__ == "Dinov2ForImageClassification"
    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32}
    torch.save(one.state_dict(), path / "pytorch_model.bin")
    (path / "preprocessor_config.json").write_text(
        json.dumps({
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"shortest_edge": 128},
            "crop_size": {"height": 112, "width": 112}, "do_center_crop": True, "resample": 3,
        })
    )  # fmt: skip
    other = create_model(f"hf:{path}", seed=2)
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    card = model_card(f"hf:{path}")
    assert card.brings_weights
    found = card.preprocessing
    assert (found.normalisation, found.fit, found.interpolation) == (
        "0.5,0.5,0.5/0.25,0.25,0.25",
        "crop:0.875",
        "bicubic",
    )
    assert not model_card(f"hf:{path}/config.json").brings_weights
    changed = create_model(f"hf:{path}/config.json", seed=2)
    assert not torch.equal(changed.get_parameter("classifier.weight"), one.get_parameter("classifier.weight"))
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(WeightsError):
        create_model(f"hf:{path}")
    assert not Path("ran").exists()


def test_options_and_sizes_change_the_configuration() -> None:
    path = folder("dinov2")
    assert model_card(f"hf:{path}").input_size == (112, 112)
    model: Any = create_model(f"hf:{path}", num_hidden_layers=1, num_channels=1, size=(56, 56))
    assert len(model.encoder.layer) == 1
    assert model.config.image_size == 56
    assert model(torch.zeros(1, 1, 56, 56)).last_hidden_state.shape == (1, 17, 48)
    one, same, other = (create_model(f"hf:{path}", seed=seed).state_dict() for seed in (1, 1, 2))
    key = "embeddings.cls_token"
    assert torch.equal(one[key], same[key])
    assert not torch.equal(one[key], other[key])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hf:dinov22", {}, "transformers has no network 'dinov22'; did you mean dinov2"),
        ("hf:bert", {"num_hidden_layers": 1, "vocab_size": 9}, "takes input_ids; expected a network of images"),
        ("hf:missing.json", {}, "missing.json cannot be read as a configuration"),
        ("hf:dinov2/config.json", {"layers": 3}, "has no option 'layers'"),
        ("hf:remote", {}, "transformers has no network 'my_own'"),
        ("monai:Unett", {}, "monai has no network 'Unett'; did you mean "),
        ("monai:FlexibleUNet", {}, "missing 1 required positional argument: 'backbone'"),
        ("monai:DenseNet121", {"pretrained": True}, "would load weights by its option pretrained"),
    ],
)
def test_what_cannot_be_built_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    folder("dinov2")
    Path("remote").mkdir()
    content = {"model_type": "my_own", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    Path("remote/config.json").write_text(json.dumps(content))
    Path("remote/code.py").write_text("open('ran', 'w')")
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        create_model(name, **options)
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_backbones_are_never_fetched() -> None:
    Path("detr").mkdir()
    content = {"model_type": "detr", "use_timm_backbone": True, "use_pretrained_backbone": True, "backbone": "resnet18"}
    Path("detr/config.json").write_text(json.dumps(content | {"encoder_layers": 1, "decoder_layers": 1}))
    with suppress(ModelError):
        create_model("hf:detr")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", ["UNet", "SegResNet", "UNETR", "DenseNet121", "resnet18", "MedNeXtS"])
def test_networks_of_monai_take_mammograms_by_default(network: str) -> None:
    model = create_model(f"monai:{network}", size=(64, 64))
    assert model(torch.zeros(1, 1, 64, 64)) is not None
    assert erf.build_network(model, size=(64, 64)).input_shape == (1, 64, 64)


@pytest.mark.filterwarnings("ignore")
def test_on_the_command_line() -> None:
    path = folder("dinov2")
    run = ["compute", "-m", f"hf:{path}", "-n", 2, "--device", "cpu", "--no-picture"]
    result = call(*run)
    assert result.exit_code == 0, result.stderr
    assert "written: hf-dinov2.h5" in result.stdout
    assert erf.load("hf-dinov2.h5").provenance.layer == "encoder:last_hidden_state"
    refused = complaint(*run, "--layer", "output:last_hidden_state", "-o", "x.h5")
    assert "--allow-rounding" in refused
    assert not Path("x.h5").exists()
    run = ["compute", "-m", "monai:UNet", "--model-arg", "channels=(4, 8)", "--model-arg", "strides=(2,)"]
    assert call(*run, "--size", "64x64", "-n", 2, "--device", "cpu", "--no-picture").exit_code == 0
