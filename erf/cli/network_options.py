"""Input size and number of classes of a network, shared by `erf train` and `erf evaluate`."""

from collections.abc import Sequence

from erf.cli.console import parse_size


def frame_of(model: str, size: str) -> tuple[int, int]:
    """Return the (height, width) of a network's input: from the option, from its card, or the fallback."""
    from erf.models import model_card
    from erf.models.libraries import FALLBACK_SIZE

    if size:
        return parse_size(size)
    own = model_card(model).input_size
    return own if all(own) else FALLBACK_SIZE


def with_classes(model: str, model_arg: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Return a network's options, with the number of classes added if the network takes it and it is not given."""
    from erf.models.sources import is_code

    given = list(model_arg or [])
    source = model.split(":", maxsplit=1)[0]
    name = {"timm": "num_classes", "torchvision": "num_classes"}.get(source, "classes")
    if is_code(model) or any(text.split("=")[0].strip() == name for text in given):
        return given
    return [*given, f"{name}={len(classes)}"]
