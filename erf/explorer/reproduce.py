"""The command and the lines of Python that compute what the page shows."""

import shlex
from collections.abc import Mapping
from typing import Any

from erf.explorer.field import Field
from erf.explorer.subject import Subject
from erf.images import PHANTOM


def command_of(subject: Subject, found: Field) -> str:
    """Return the command that computes the ERF of the unit over all images; '' for the field of a pixel."""
    if found.kind != "field":
        return ""
    network, place = subject.network, found.place
    words = ["erf", "compute", "-m", network.name]
    if network.weights and not network.weights.startswith(("shipped/", "of ")):
        words += ["--weights", network.weights]
    for name, value in network.options.items():
        words += ["--model-arg", f"{name}={value}"]
    height, width = network.size
    words += ["--size", f"{height}x{width}", "--images", subject.source, "-n", str(len(subject.images))]
    words += ["--layer", place.layer, "--unit", ",".join(map(str, found.unit))]
    if place.channel != "all":
        words += ["--channel", str(place.channel)]
    if place.definition != "abs":
        words += ["--definitions", place.definition]
    return shlex.join(words)


def python_of(subject: Subject, found: Field) -> str:
    """Return lines of Python that compute the field in this image."""
    network, place = subject.network, found.place
    given: dict[str, Any] = {}
    if network.weights and not network.weights.startswith(("shipped/", "of ")):
        given["weights"] = network.weights
    if network.options:
        given["model_args"] = dict(network.options)
    image = subject.image(place.image)
    framing = subject.images.framing
    chosen: dict[str, Any] = {"n": len(subject.images), "size": network.size}
    for name, value in (("normalisation", framing.normalisation), ("fit", framing.fit)):
        if value != {"normalisation": "standardise", "fit": "pad"}[name]:
            chosen[name] = value
    if framing.channels != 1:
        chosen["channels"] = framing.channels
    lines = [
        "import erf",
        "",
        f"network = erf.build_network({_arguments(network.name, size=network.size, **given)})",
        f"images = erf.load_images({_arguments(subject.source or PHANTOM, **chosen)}).only({image.id!r})",
    ]
    if found.kind == "projective":
        pixel = tuple(int(index) for index in found.center)
        channel = {} if place.channel == "all" else {"channel": place.channel}
        options = _arguments(layer=place.layer, pixel=pixel, **channel)
        return "\n".join([*lines, f"field = erf.projective_field(network, images.images[0], {options})", "field.map"])
    asked: dict[str, Any] = {"layer": place.layer, "unit": found.unit}
    if place.channel != "all":
        asked["channel"] = place.channel
    if place.definition != "abs":
        asked["definitions"] = place.definition
    return "\n".join([*lines, f"result = erf.compute(network, images, {_arguments(**asked)})", "result.plot()"])


def _arguments(*positional: Any, **named: Any) -> str:
    given: Mapping[str, Any] = named
    return ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in given.items())])
