"""Reference of the command line, written from the help of every command."""

from typing import Any

from generated import directive
from sphinx.application import Sphinx
from typer.main import get_command

from erf.cli import app as erf_app


def _commands() -> str:
    commands: dict[str, Any] = get_command(erf_app).commands  # type: ignore[attr-defined]
    return "\n\n".join(_command(name, command) for name, command in commands.items())


def _command(name: str, command: Any) -> str:
    """Return usage, help and options of a command."""
    context = command.context_class(command, info_name=f"erf {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"(erf-{name})=", f"## erf {name}", f"```text\n{usage}\n```", command.help or ""]
    panels: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        words, meaning = parameter.get_help_record(context) or _argument(parameter)
        words = words.replace(" range>", ">")  # the range itself follows the meaning
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(
            f"::::{{option}} {words}\n{meaning}\n::::"
        )
    parts.append(f"```{{program}} erf {name}\n```")
    for panel, options in panels.items():
        title = [f":::{{rubric}} {panel}\n:::"] if len(panels) > 1 else []
        parts += [*title, *options]
    return "\n\n".join(parts)


def _argument(parameter: Any) -> tuple[str, str]:
    """Return the placeholder and the meaning of an argument."""
    return parameter.name.upper(), parameter.help or ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive `commands`."""
    app.add_directive("commands", directive(_commands))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
