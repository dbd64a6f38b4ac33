"""ResNet-50 and DenseNet-121 with spectral residual blocks between their stages.

Paper: Li et al. Spectrally-enforced global receptive field for contextual medical image segmentation and
classification. ICME 2020 (doi 10.1109/ICME46284.2020.9102949), Table 4. Both networks from timm.

The paper adds two SRB_F blocks and gives neither their positions nor a parameter count; it reports that positions and
number (one to three) hardly matter. Choice: after the last two stages. `places` selects other positions; each must be a
stage (an `nn.Sequential`) or a child of one, such as 'layer2' or 'features.transition2'. Input 224x224, a crop of the
paper's 240x240; 14 classes, those of ChestX-ray14.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ModelError
from .layers.library import insert_after, timm_model
from .layers.spectral import FourierBlock
from .registry import ModelCard, register

SIZE = (224, 224)


def build(
    network: str,
    places: str,
    in_channels: int = 3,
    classes: int = 14,
    size: tuple[int, int] = SIZE,
    tag: str = "",
    **options: Any,
) -> nn.Module:
    """Build a timm network with an SRB_F block after each place; (N, in_channels, H, W) -> logits (N, classes).

    Args:
        network: timm's name of the network.
        places: module paths, separated by commas.
        in_channels: channels of the input.
        classes: number of logits.
        size: (H, W) of the input in pixels; the blocks' parameters belong to it.
        tag: timm's tag of pretrained weights; empty for random weights.
        options: passed to each `FourierBlock`.

    Raises:
        ModelError: a place does not exist, yields no feature map, or no block can be inserted after it.
    """
    model = timm_model(network, tag, in_chans=in_channels, num_classes=classes)
    for place in filter(None, (name.strip() for name in places.split(","))):
        channels, height, width = map_shape(model, place, (in_channels, *size))
        add_behind(model, place, FourierBlock(channels, (height, width), **options))
    return model


def map_shape(model: nn.Module, path: str, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Infer the shape (C, H, W) of a module's output on the meta device, without computing values.

    Args:
        model: the network; it is copied, not changed.
        path: path of the module.
        input_shape: (C, H, W) of the network's input.

    Raises:
        ModelError: there is no such module, or its output is not a map (N, C, H, W).
    """
    shapes: list[torch.Size] = []
    twin = deepcopy(model).to("meta").eval()
    modules = dict(twin.named_modules())
    if path not in modules:
        raise ModelError(f"no module '{path}' in {type(model).__name__}, behind which a block could be put")

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        shapes.append(output.shape)

    modules[path].register_forward_hook(note)
    twin(torch.empty(1, *input_shape, device="meta"))
    if not shapes or len(shapes[0]) != 4:
        raise ModelError(f"module '{path}' of {type(model).__name__} yields no map (N, C, H, W)")
    return shapes[0][1], shapes[0][2], shapes[0][3]


def add_behind(model: nn.Module, path: str, block: nn.Module) -> None:
    """Insert a block after a module, in place; all other parameters keep their names.

    Args:
        model: the network, which is changed.
        path: path of the module.
        block: the module to insert.

    Raises:
        ModelError: neither the module nor its parent is an `nn.Sequential`.
    """
    module = model.get_submodule(path)
    if isinstance(module, nn.Sequential):
        module.add_module("srb", block)
        return
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if not parent_path or not isinstance(parent, nn.Sequential):
        raise ModelError(f"nothing can be put behind '{path}': neither it nor its parent is a row of modules")
    holder_path, _, parent_name = parent_path.rpartition(".")
    setattr(model.get_submodule(holder_path), parent_name, insert_after(parent, name, f"{name}_srb", block))


_RESNET_LAYERS = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
_DENSENET_LAYERS = ("features.pool0", *(f"features.transition{index}" for index in range(1, 4)), "features")

for _name, _network, _words, _places, _parameters, _layers in (
    ("densenet121", "densenet121", "DenseNet-121", "", 6_968_206, _DENSENET_LAYERS),
    (
        "densenet121-srb-f",
        "densenet121",
        "DenseNet-121, SRB_F behind its last two blocks",
        "features.denseblock3,features.norm5",
        8_025_256,
        _DENSENET_LAYERS,
    ),
    (
        "resnet50-srb-f",
        "resnet50",
        "ResNet-50, SRB_F behind its last two stages",
        "layer3,layer4",
        26_170_728,
        _RESNET_LAYERS,
    ),
):
    register(
        ModelCard(
            name=_name,
            summary=_words,
            paper="Li et al. 2020 (SRB, doi 10.1109/ICME46284.2020.9102949)",
            build=partial(build, _network, places=_places),
            parameters=_parameters,
            layers=_layers,
            in_channels=3,
            input_size=SIZE,
            default_layer=_layers[-1],
            sized=True,
            tagged=True,
        )
    )
