"""Remedies of the library's errors in terms of the command line: its options instead of Python's arguments."""

import re

from erf.errors import ErfError

OPTIONS = {
    "activation": "--activation",
    "allow_different": "--allow-different",
    "allow_missing": "--allow-missing",
    "allow_outside": "--allow-outside",
    "allow_rounding": "--allow-rounding",
    "array": "--array",
    "batch_size": "--batch-size",
    "channel": "--channel",
    "classes": "--classes",
    "definition": "--definition",
    "definitions": "--definitions",
    "depth": "--depth",
    "deterministic": "--deterministic",
    "fit": "--fit",
    "interpolation": "--interpolation",
    "layer": "--layer",
    "micro_batch": "--micro-batch",
    "normalisation": "--normalise",
    "overwrite": "--overwrite",
    "projections": "--projections",
    "resume": "--resume",
    "size": "--size",
    "source": "--images",
    "trust": "--trust",
    "unit": "--unit",
    "weights": "--weights",
    "where": "--where",
}
"""Options of the commands by the names of Python's arguments."""

COMMANDS = {
    "layers": "`erf layers`",
    "list_models": "`erf models`",
    "load_series": "`erf show` or `erf plot --over-training`",
    "save_predictions": "`erf evaluate`",
}
"""Commands by the names of the functions that do the same."""

_NAME = re.compile(r"`(?:erf\.)?(\w+)(?:=([^`]+))?`")
"""Name of an argument or a function in a remedy, and the value of an argument."""


def message_of(error: ErfError) -> str:
    """Return an error's message and its remedy, in one line, for the user of the command line."""
    return f"{error.message}; {translate(error.remedy)}" if error.remedy else error.message


def translate(remedy: str) -> str:
    """Replace Python's names in backticks by options and commands: `overwrite=True` is --overwrite.

    Names without a counterpart stay as they are.
    """
    return _NAME.sub(_on_command_line, remedy)


def _on_command_line(name: re.Match[str]) -> str:
    if name[1] in COMMANDS:
        return COMMANDS[name[1]]
    if name[1] not in OPTIONS:
        return name[0]
    option = OPTIONS[name[1]]
    return option if name[2] in (None, "True") else f"{option} {name[2]}"
