"""`erf anonymise`: remove identifying information from ERF files."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, fail, parse_list, reported_errors, say, warn
from erf.cli.options import Keep, Overwrite, Salt, Thumbnails

_SHORT = 8
"""Salts with fewer characters can be guessed by trying all of them."""


def anonymise(
    files: Annotated[list[Path], typer.Argument(help="ERF files or series over training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 file; of several files, a folder that exists.")],
    salt: Salt = "",
    keep: Keep = "",
    thumbnails: Thumbnails = False,
    overwrite: Overwrite = False,
) -> None:
    """Write files without names: ids, paths and patients are hashed; columns, thumbnails and the command are removed.

    Pairs, patients and sides are kept, so that `erf compare` gives the same numbers. `erf show --private` lists the
    identifying information in a file.
    """
    with reported_errors():
        from erf.storage import SUFFIXES
        from erf.storage.outputs import check_no_input, check_outputs
        from erf.storage.privacy import drawn_salt

        if output.is_dir():
            outputs = [output / file.name for file in files]
        elif len(files) > 1:
            fail(f"{output} is no folder; expected one for {len(files)} files")
        else:
            outputs = [output]
        check_outputs(outputs, SUFFIXES)
        check_no_input(outputs, files)
        check_salt(salt)
        with busy("writing"):
            for file, path in zip(files, outputs, strict=True):
                _write(file, path, salt or (salt := drawn_salt()), parse_list(keep), thumbnails, overwrite)
        say(f"written: {', '.join(map(str, outputs))}")


def check_salt(salt: str) -> None:
    """Warn about a salt that is short enough to be guessed."""
    if 0 < len(salt) < _SHORT:
        warn(f"a salt of {len(salt)} characters can be guessed, and names with it; choose {_SHORT} or more")


def _write(file: Path, path: Path, salt: str, keep: tuple[str, ...], thumbnails: bool, overwrite: bool) -> None:
    from erf.storage import load, save
    from erf.storage.privacy import anonymise as without_names
    from erf.storage.series import is_series, load_series, save_series

    if is_series(file):
        series = without_names(load_series(file), salt=salt, keep=keep, thumbnails=thumbnails)
        save_series(series, path, overwrite=overwrite)
    else:
        save(without_names(load(file), salt=salt, keep=keep, thumbnails=thumbnails), path, overwrite=overwrite)
