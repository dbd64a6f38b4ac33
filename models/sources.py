"""External networks: from libraries, a user's code, or an exported archive.

`timm:NAME`, `torchvision:NAME`, `smp:ARCHITECTURE:ENCODER`, `hf:FOLDER`, `monai:NAME`, `package.module:factory`,
`path/to/file.py:factory`, and `file.pt2`, an archive of `torch.export`. A factory is any callable that returns a
module; it receives the options of the network. Calling it runs the user's code: only the named module or file is
imported, but that code may do anything. An archive looks like data but is code as well: its sizes are expressions that
PyTorch evaluates on opening.
"""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import ModelError
from .huggingface import huggingface_card
from .layers.library import timm_model
from .libraries import as_module, called, check_known, check_untrained, external_card, library
from .monai_networks import monai_card
from .preprocessing import MAMMOGRAMS, of_timm, of_torchvision
from .registry import ModelCard

ARCHIVE = ".pt2"

WORDS = (
    "timm:NAME, torchvision:NAME, smp:ARCHITECTURE:ENCODER, hf:FOLDER, monai:NAME, package.module:factory, "
    "file.py:factory or file.pt2"
)


def is_source(name: str) -> bool:
    """Whether a name refers to a network outside the registry."""
    return ":" in name or name.endswith(ARCHIVE)


def is_code(name: str) -> bool:
    """Whether a name refers to code that is neither ours nor of a known library: a factory or an archive."""
    return name.endswith(ARCHIVE) or (":" in name and name.split(":", maxsplit=1)[0] not in _CARDS)


def source_card(name: str) -> ModelCard:
    """Return a card for an external network; nothing is built and no file is run.

    Fields that only the built network defines, such as its channels, stay empty.

    Raises:
        ModelError: the name does not refer to a network.
    """
    if name.endswith(ARCHIVE):
        return external_card(
            name, "an exported network", partial(_read_archive, name), brings_weights=True, guarded=True
        )
    kind, _, rest = name.partition(":")
    if not rest:
        raise ModelError(f"model '{name}' names nothing behind the colon; expected {WORDS}")
    if kind in _CARDS:
        return _CARDS[kind](name, rest)
    build = partial(_call_factory, *name.rsplit(":", 1))
    return external_card(name, f"what {rest} of {kind} returns", build, brings_weights=True)


def module_card(module: nn.Module) -> ModelCard:
    """Return a card for a network that is built already, named by its class."""
    layer = getattr(module, "default_layer", "")
    return external_card(
        type(module).__name__,
        "a module",
        lambda: module,
        brings_weights=True,
        default_layer=layer if isinstance(layer, str) else "",
    )


def _timm_card(name: str, network: str) -> ModelCard:
    timm = library("timm", "timm")
    check_known(network.split(".", maxsplit=1)[0], timm.list_models(), "timm")
    found = timm.models.get_pretrained_cfg(network)
    shape = tuple(getattr(found, "input_size", None) or (3, 224, 224))
    return external_card(
        name,
        "a network of timm",
        partial(_build_timm, network, shape[1:]),
        input_size=shape[1:],
        preprocessing=of_timm(found) if found else MAMMOGRAMS,
        sized=True,
        tagged=True,
    )


def _build_timm(network: str, own: tuple[int, int], size: tuple[int, int], tag: str = "", **options: Any) -> nn.Module:
    """Build a timm network, with `img_size` only if needed: networks of flexible size do not have that option."""
    if tuple(size) != own:
        try:
            return timm_model(network, tag, img_size=tuple(size), **options)
        except ModelError as error:
            if "img_size" not in str(error):
                raise
    return timm_model(network, tag, **options)


def _torchvision_card(name: str, network: str) -> ModelCard:
    models = library("torchvision.models", "timm")
    check_known(network, models.list_models(), "torchvision")
    weights = models.get_model_weights(network)
    found = of_torchvision(weights.DEFAULT.transforms()) if hasattr(weights, "DEFAULT") else MAMMOGRAMS
    return external_card(name, "a network of torchvision", partial(_build_torchvision, network), preprocessing=found)


def _build_torchvision(network: str, **options: Any) -> nn.Module:
    models = library("torchvision.models", "timm")
    # Weights would be downloaded, those of a backbone even by default.
    taken = inspect.signature(models.get_model_builder(network)).parameters
    check_untrained(f"torchvision:{network}", options, ("weights", "weights_backbone"))
    nothing = {option: None for option in ("weights", "weights_backbone") if option in taken}
    return as_module(
        f"torchvision:{network}", called(f"torchvision:{network}", models.get_model, network, **nothing | options)
    )


def _smp_card(name: str, network: str) -> ModelCard:
    return external_card(name, "a network of segmentation_models_pytorch", partial(_build_smp, network))


def _build_smp(text: str, **options: Any) -> nn.Module:
    smp = library("segmentation_models_pytorch", "smp")
    architecture, _, encoder = text.partition(":")
    name = f"smp:{text}"
    check_untrained(name, options, ("encoder_weights",))
    defaults = {"encoder_name": encoder or "resnet34", "encoder_weights": None}
    return as_module(name, called(name, smp.create_model, architecture, **defaults | options))


_CARDS = {
    "timm": _timm_card,
    "torchvision": _torchvision_card,
    "smp": _smp_card,
    "hf": huggingface_card,
    "monai": monai_card,
}
"""Functions that make the card of a library's network, by the word before the colon."""


def _call_factory(module: str, attribute: str, **options: Any) -> nn.Module:
    name = f"{module}:{attribute}"
    with torch.random.fork_rng(devices=[]):  # random numbers drawn by a first import must not change the weights
        found: Any = _import(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [one for one in dir(found) if not one.startswith("_")], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "name a function, a class or a network"
            raise ModelError(f"{module} has no '{attribute}'; {hint}")
        found = getattr(found, part)
    if isinstance(found, nn.Module) and not options:
        return found
    if not callable(found) or isinstance(found, nn.Module):
        raise ModelError(f"{name} is {type(found).__name__}; expected a function or class that makes a network")
    return as_module(name, called(name, found, **options))


def _import(module: str) -> Any:
    path = Path(module)
    if module.endswith(".py"):
        if not path.is_file():
            raise ModelError(f"{module}: no such file; expected file.py:factory")
        place = importlib.util.spec_from_file_location(f"erf_user_{path.stem}", path)
        assert place is not None
        assert place.loader is not None
        loaded = importlib.util.module_from_spec(place)
        sys.modules[place.name] = loaded
        with _importing(module, path.resolve().parent):
            place.loader.exec_module(loaded)
        return loaded
    with _importing(module, Path.cwd()):
        return importlib.import_module(module)


@contextmanager
def _importing(module: str, folder: Path) -> Iterator[None]:
    """Make a folder importable, as `python file.py` does, and turn import failures into one-line errors."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ModelError(
                f"no module '{error.name}' to import",
                remedy=f"expected {WORDS}, or a name that `list_models` lists",
            ) from error
        raise ModelError(f"{module} cannot be imported ({error})") from error
    except Exception as error:  # a user's file may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{module} cannot be imported ({reason})") from error
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _read_archive(name: str, trust: bool) -> nn.Module:
    """Load the network of an archive, with its module hierarchy restored; its input has the exported size.

    Raises:
        ModelError: the file is missing, not trusted, or not a readable archive.
    """
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"{name}: no such file; expected an archive of torch.export.save")
    if not trust:
        raise ModelError(
            f"{name} is code: opening an archive of torch.export can run anything that its maker has put there",
            remedy="if you trust its maker, ask for `trust=True`",
        )
    try:
        program = torch.export.load(path)
        network: Any = torch.export.unflatten(program)
        shapes = [
            tuple(node.meta["val"].shape)
            for node in program.graph.nodes
            if node.name in program.graph_signature.user_inputs
        ]
    except Exception as error:  # a damaged archive may hold anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{name} cannot be read as an archive of torch.export ({reason})") from error
    # The modules of an exported network no longer show these.
    network.in_channels, network.input_size, network.input_axes = shapes[0][1], shapes[0][2:], len(shapes[0]) - 2
    network.input_names = tuple(program.graph_signature.user_inputs) if len(shapes) > 1 else ()
    return network


def list_timm(pattern: str) -> list[str]:
    """List timm's networks that match a shell-style pattern; `ModelError` without timm."""
    names: list[str] = library("timm", "timm").list_models(pattern)
    return names


def input_channels(model: nn.Module) -> int:
    """Return the input channels of the first convolution; 3 if there is none."""
    if isinstance(value := getattr(model, "in_channels", None), int):
        return value
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return next((module.in_channels for module in model.modules() if isinstance(module, kinds)), 3)


def input_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors that `forward` requires; empty if it requires only one."""
    if isinstance(value := getattr(model, "input_names", None), tuple):
        return value
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(one.name for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty)
    return names if len(names) > 1 else ()


def input_axes(model: nn.Module) -> int:
    """Return the number of spatial axes of the first convolution: 2 for images, 3 for volumes, 1 for signals."""
    if isinstance(value := getattr(model, "input_axes", None), int):
        return value
    kinds = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
    found = (axes for module in model.modules() for kind, axes in kinds.items() if isinstance(module, kind))
    return next(found, 2)
