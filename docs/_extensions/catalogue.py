"""Tables of measures, networks and public names, written from the code."""

from generated import directive, table
from sphinx.application import Sphinx

import erf
from erf.measures import MEASURES
from erf.models import list_models, model_card, shipped_weights


def _measures() -> str:
    parts = []
    for group in dict.fromkeys(measure.group for measure in MEASURES.values()):
        rows = [
            [f"`{measure.name}`", measure.description, measure.unit or "–", measure.bounds, measure.source]
            for measure in MEASURES.values()
            if measure.group == group
        ]
        parts += [f"## {group.capitalize()}", table(["name", "meaning", "unit", "range", "source"], rows)]
    return "\n\n".join(parts)


def _models() -> str:
    cards = [model_card(name) for name in list_models()]
    parts = []
    for paper in dict.fromkeys(card.paper for card in cards):
        rows = [
            [
                f"`{card.name}`",
                card.summary + (", trained weights" if shipped_weights(card.name) else ""),
                " ".join(f"`{layer}`" for layer in card.layers),
                f"`{card.default_layer}`",
                f"{card.parameters:,}",
                "{1}x{2}, {0} ch.".format(card.in_channels, *card.input_size),
            ]
            for card in cards
            if card.paper == paper
        ]
        header = ["name", "network", "layers", "default layer", "parameters", "default input"]
        parts += [f"## {paper}", table(header, rows)]
    return "\n\n".join(parts)


def _names(*names: str) -> str:
    """Return a table of public names with the first lines of their docstrings."""
    return table(["name", "meaning"], [[f"{{py:obj}}`erf.{name}`", _first_line(name)] for name in names])


def _first_line(name: str) -> str:
    found = getattr(erf, name)
    if isinstance(found, dict):
        return (
            "dictionary by name: " + ", ".join(f"`{key}`" for key in [*found][:4]) + (", …" if len(found) > 4 else "")
        )
    return (found.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives `measures`, `models` and `names`."""
    app.add_directive("measures", directive(_measures))
    app.add_directive("models", directive(_models))
    app.add_directive("names", directive(_names))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
