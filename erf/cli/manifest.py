"""`erf manifest`: write a manifest CSV for the folder of a public data set."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import fail, reported_errors, say
from erf.cli.options import Overwrite

if TYPE_CHECKING:
    from erf.images import Image

_FIRST = ("path", "label", "patient_id", "view", "split")


def manifest(
    folder: Annotated[Path, typer.Argument(help="BreakHis, ISIC 2017 or 2018, or ChestX-ray14, as published.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file; default: manifest.csv in the folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a manifest of a public data set from the names of its files and folders, for `--images` of all commands.

    `erf train` and `erf evaluate` accept such a folder directly; the file is useful to inspect or edit it, and for
    `erf compute --subset-by magnification`.
    """
    output = output or folder / "manifest.csv"
    with reported_errors():
        from erf.cli.output_files import writing
        from erf.datasets.layouts import layout_of, recognise

        with writing([output], overwrite, (".csv",)) as staging:
            images = recognise(folder) if folder.is_dir() else None
            if not images:
                fail(f"{folder}: found no known public data set; expected BreakHis, ISIC or ChestX-ray14")
            _write(images, folder, output, staging.part(output))
        say(f"{len(images)} images of {layout_of(folder)}")


def _write(images: "Sequence[Image]", folder: Path, output: Path, part: Path) -> None:
    """Write the manifest to the temporary file `part`, with paths relative to its final location `output`."""
    from erf.storage.files import complete_file

    further = dict.fromkeys(name for image in images for name in image.columns if name not in _FIRST)
    with complete_file(part) as hidden, hidden.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*_FIRST, *further], restval="")
        writer.writeheader()
        for image in images:
            own = {"path": folder / image.path, "patient_id": image.patient_id, "view": image.view}
            row = dict(image.columns) | {name: str(value) for name, value in own.items()}
            for name in ("path", "mask"):
                if row.get(name):
                    place = Path(row[name]) if name == "path" else folder / row[name]
                    row[name] = Path(os.path.relpath(place, output.parent)).as_posix()
            writer.writerow(row)
