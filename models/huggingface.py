"""Networks of Hugging Face transformers, `hf:FOLDER`, never loaded from a hub.

`hf:` is followed by a folder with config.json and perhaps weights, by a configuration file, or by a model type such as
`dinov2`, whose default configuration is built. A configuration is read as data; code that it names is not run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from .errors import ModelError
from .libraries import as_module, called, check_known, external_card, library
from .preprocessing import MAMMOGRAMS, Preprocessing, of_huggingface
from .registry import ModelCard
from .weights import load_weights

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a folder, the preferred one first."""


def huggingface_card(name: str, place: str) -> ModelCard:
    """Return the card of a network of transformers; its configuration is read, nothing is built.

    Raises:
        ModelError: transformers is not installed, the configuration cannot be read, or its type is not known.
    """
    transformers, path = library("transformers", "hf"), Path(place)
    content = _content(path)
    if content is None:
        _check_known_type(transformers, place)
        content = {"model_type": place}
    elif not isinstance(content.get("model_type"), str):
        raise ModelError(f"{place}: the configuration has no model_type; expected one of transformers")
    _check_known_type(transformers, content["model_type"])
    config = _configured(transformers, name, content, {})
    weights = next((path / file for file in _WEIGHTS if (path / file).is_file()), None)
    return external_card(
        name,
        "a network of transformers",
        partial(_build, name, content, weights),
        input_size=_own_size(config),
        preprocessing=_preprocessing(path),
        sized=True,
        brings_weights=weights is not None,
    )


def _content(path: Path) -> dict[str, Any] | None:
    """Return the content of a configuration file or of that of a folder; None where the path is neither."""
    file = path / "config.json" if path.is_dir() else path
    if not path.is_dir() and path.suffix != ".json":
        return None
    return _read(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as a configuration ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds {type(content).__name__}; expected a configuration of transformers")
    return content


def _check_known_type(transformers: Any, kind: str) -> None:
    names = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    check_known(kind, names, "transformers")


def _configured(transformers: Any, name: str, content: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the configuration with some options changed; backbones within it are untrained."""
    kind = transformers.CONFIG_MAPPING[content["model_type"]]
    config = called(name, kind.from_dict, dict(content) | {"use_pretrained_backbone": False})
    known = config.to_dict()
    for key in options:
        if key not in known:
            raise ModelError(f"{name} has no option '{key}'; expected one of its configuration, such as num_channels")
    return called(name, kind.from_dict, dict(content) | {"use_pretrained_backbone": False} | dict(options))


def _build(name: str, content: Mapping[str, Any], weights: Path | None, size: tuple[int, int], **options: Any) -> Any:
    transformers = library("transformers", "hf")
    config = _configured(transformers, name, content, options)
    is_resized = weights is None and "image_size" not in options and getattr(config, "image_size", None) is not None
    if is_resized and all(size) and tuple(size) != _own_size(config):
        config.image_size = size[0] if size[0] == size[1] else list(size)
    with _offline(transformers):
        model = as_module(name, called(name, _class(transformers, name, config), config))
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise ModelError(f"{name} takes {getattr(model, 'main_input_name', 'no image')}; expected a network of images")
    if weights is not None:
        load_weights(model, weights)
    return model


def _class(transformers: Any, name: str, config: Any) -> type[nn.Module]:
    """Return the class that a configuration names, or else the network without a head."""
    for known in config.architectures or ():
        found = getattr(transformers, str(known), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if type(config) not in transformers.MODEL_MAPPING:
        raise ModelError(f"{name}: transformers has no network for {type(config).__name__}")
    found = transformers.MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found


@contextmanager
def _offline(transformers: Any) -> Iterator[None]:
    """Context manager in which the hub's library asks no hub."""
    constants = library("huggingface_hub.constants", "hf")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _own_size(config: Any) -> tuple[int, int]:
    """Return the (height, width) of a configuration; (0, 0) if it has none."""
    found = getattr(config, "image_size", None)
    found = (found, found) if isinstance(found, int) else found
    if isinstance(found, list | tuple) and len(found) == 2 and all(isinstance(one, int) for one in found):
        return (found[0], found[1])
    return (0, 0)


def _preprocessing(path: Path) -> Preprocessing:
    """Read the preprocessing from the folder of a configuration, if it has one."""
    file = (path if path.is_dir() else path.parent) / "preprocessor_config.json"
    return of_huggingface(_read(file)) if path.exists() and file.is_file() else MAMMOGRAMS
