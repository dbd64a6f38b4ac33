"""How verbs write: outputs are checked before the work, and appear together after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from erf.cli.console import say
from erf.outputs import check_no_input, check_outputs
from erf.staging import Staging


@contextmanager
def writing(
    outputs: Sequence[Path], overwrite: bool, suffixes: Sequence[str] = (), inputs: Sequence[Path] = ()
) -> Iterator[Staging]:
    """Where to write some files, none of which may be an input; they get their names in the end, which is told."""
    check_outputs(outputs, suffixes)
    check_no_input(outputs, inputs)
    staging = Staging(outputs, overwrite)
    if not outputs:
        yield staging
        return
    with staging:
        yield staging
        staging.publish()
    say(f"written: {', '.join(map(str, outputs))}")
