"""The command and the lines of Python that compute what the page shows."""

import shlex
from typing import Any

from erf.explorer.field import Field
from erf.explorer.subject import Subject
from erf.images import PHANTOM


def command_of(subject: Subject, found: Field) -> str:
    """Return the command that computes the ERF of the unit over all images; '' where none can.

    No command computes the field of a pixel, or takes what was given from Python.
    """
    given, place = subject.given, found.place
    if found.kind != "field" or not given.model or not given.source:
        return ""
    words = ["erf", "compute", "-m", given.model]
    if given.weights:
        words += ["--weights", given.weights]
    for name, value in subject.network.options.items():
        words += ["--model-arg", f"{name}={value}"]
    height, width = subject.network.size
    words += ["--size", f"{height}x{width}", "--images", given.source, "-n", str(len(subject.images))]
    for name, value in (
        ("seed", subject.seed),
        ("image-seed", given.image_seed),
        ("normalise", given.normalisation),
        ("fit", given.fit),
        ("interpolation", given.interpolation),
    ):
        if value:
            words += [f"--{name}", str(value)]
    words += [f"--{name}" for name in ("trust", "allow-outside") if getattr(given, name.replace("-", "_"))]
    words += ["--layer", place.layer, "--unit", ",".join(map(str, found.unit))]
    if place.channel != "all":
        words += ["--channel", str(place.channel)]
    if place.definition != "abs":
        words += ["--definitions", place.definition]
    return shlex.join(words)


def python_of(subject: Subject, found: Field) -> str:
    """Return lines of Python that compute the field in this image."""
    given, network, place = subject.given, subject.network, found.place
    missing = [name for name, known in (("model", given.model), ("images", given.source)) if not known]
    lines, image = ["import erf", ""], subject.pictures.image(place.image)
    if missing:
        lines += [f"# {' and '.join(missing)}: as given to erf.explore"]
    lines += [f"network = erf.build_network({_network(subject)})", f"images = {_images(subject)}.only({image.id!r})"]
    if given.source not in ("", PHANTOM) and (place.channel == "signs" or subject.passes.is_random):
        lines = ["from dataclasses import replace", "", *lines, "# random numbers are drawn by the image's number"]
        lines += [f"images = replace(images, images=(replace(images.images[0], number={image.number}),))"]
    options: dict[str, Any] = {"layer": place.layer}
    if found.kind == "projective":
        options["pixel"] = tuple(int(index) for index in found.center)
        if place.channel != "all":
            options["channel"] = place.channel
        if network.arguments.names:
            options["input_name"] = network.arguments.names[place.part]
        called = _arguments(**options, definition=place.definition)
        sample = "images.sample(images.images[0])"
        return "\n".join([*lines, f"field = erf.projective_field(network, {sample}, {called})", "field.map"])
    options["unit"] = found.unit
    if place.channel != "all":
        options["channel"] = place.channel
    if place.definition != "abs":
        options["definitions"] = place.definition
    if network.arguments.names:
        lines += [f"# the map of all inputs together, of which {network.arguments.names[place.part]} is shown"]
    return "\n".join([*lines, f"result = erf.compute(network, images, {_arguments(**options)})", "result.plot()"])


def _network(subject: Subject) -> str:
    """Return the arguments of `erf.build_network`."""
    given, network = subject.given, subject.network
    options: dict[str, Any] = {"size": network.size}
    if given.weights:
        options["weights"] = given.weights
    if network.options and not given.is_built:
        options["model_args"] = dict(network.options)
    if subject.seed:
        options["seed"] = subject.seed
    if given.trust:
        options["trust"] = True
    return f"{repr(given.model) if given.model else 'model'}, {_arguments(**options)}"


def _images(subject: Subject) -> str:
    """Return the expression of the image."""
    given, framing, names = subject.given, subject.images.framing, subject.network.arguments.names
    if given.source:
        usual = {"normalisation": "standardise", "fit": "pad", "interpolation": "bilinear", "channels": 1}
        options: dict[str, Any] = {"n": len(subject.images), "size": subject.network.size}
        options |= {name: getattr(framing, name) for name, value in usual.items() if getattr(framing, name) != value}
        if names:
            options["inputs"] = names
        if given.image_seed:
            options["seed"] = given.image_seed
        if given.allow_outside:
            options["allow_outside"] = True
        return f"erf.load_images({given.source!r}, {_arguments(**options)})"
    return f"erf.from_arrays(images, normalisation={framing.normalisation!r})" if given.is_array else "images"


def _arguments(**named: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in named.items())
