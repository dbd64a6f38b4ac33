"""`erf protocols`: the published protocols; and their effect on the options of other commands."""

from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import reported_errors, say

if TYPE_CHECKING:
    from erf.protocols import Protocol


def protocols(
    names: Annotated[list[str] | None, typer.Argument(help="Names, or files.toml; default: a list of all.")] = None,
) -> None:
    """List the protocols of published figures, or explain some: paper, settings, known defects.

    `erf compute`, `erf plot` and `erf compare` follow one with --protocol.
    """
    with reported_errors():
        from erf.protocols import list_protocols, load_protocol

        if not names:
            _list([load_protocol(name) for name in list_protocols()])
        for name in names or ():
            _explain(load_protocol(name))


def apply_protocol(context: typer.Context, name: str) -> str:
    """Make the settings of a protocol the defaults of a command; the callback of --protocol."""
    if not name:
        return name
    with reported_errors():
        from erf.protocols import load_protocol

        protocol = load_protocol(name)
        context.default_map = dict(context.default_map or {}) | getattr(protocol, str(context.command.name))
    return name


def deviations(context: typer.Context, name: str) -> tuple[str, ...]:
    """List the options given on the command line that differ from those of a protocol."""
    if not name:
        return ()
    from erf.protocols import load_protocol

    given = {
        option: value
        for option, value in context.params.items()
        if (source := context.get_parameter_source(option)) and source.name in ("COMMANDLINE", "ENVIRONMENT")
    }
    return load_protocol(name).deviations(given)


def _list(found: "list[Protocol]") -> None:
    from erf.cli.tables import print_table

    rows = [[each.name, each.summary, each.paper] for each in found]
    print_table("protocols", ["name", "what is computed", "paper"], rows, left=3)


def _explain(protocol: "Protocol") -> None:
    from erf.cli.tables import print_table

    lines = [["computed", protocol.summary], ["paper", protocol.paper], ["read in", protocol.source]]
    for command in ("compute", "plot", "compare"):
        for option, value in getattr(protocol, command).items():
            name = f"-{option}" if len(option) == 1 else f"--{option.replace('_', '-')}"
            lines.append([f"erf {command} {name}", str(value)])
    lines += [["known defect", defect] for defect in protocol.defects]
    lines += [["note", note] for note in protocol.notes]
    print_table(f"protocol {protocol.name}", ["", ""], lines, left=2)
    say(
        f"Options given beside `--protocol {protocol.name}` win; those that change the maps are recorded as deviations."
    )
