"""Writing of the commands' outputs: checked before the work, published together after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from erf.cli.console import say
from erf.storage.outputs import check_no_input, check_outputs
from erf.storage.staging import Staging


@contextmanager
def writing(
    outputs: Sequence[Path], overwrite: bool, suffixes: Sequence[str] = (), inputs: Sequence[Path] = ()
) -> Iterator[Staging]:
    """Yield a staging area for output files, which on success are moved to their final names and reported.

    Args:
        outputs: final paths of the files.
        overwrite: whether existing files may be replaced.
        suffixes: allowed extensions; empty for any.
        inputs: files that must not be outputs.

    Raises:
        OutputError: an output cannot be written, exists already, or is an input.
    """
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
