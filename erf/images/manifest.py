"""Where images come from: a folder, a manifest CSV, or the phantom generator."""

import csv
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from erf.errors import InputError
from erf.images.dicom import is_dicom, read_header
from erf.images.image import Image
from erf.images.laterality import laterality_from_name, parse_laterality, view_from_name
from erf.images.phantom import decode_phantom, phantom_labels
from erf.images.readers import is_image, read_image

PHANTOM = "phantom"


def list_phantoms(n: int, seed: int, size: tuple[int, int], lesions: int = 0) -> list[Image]:
    """The first n phantoms of a seed, left and right in turn."""
    return [_phantom(index, seed, size, lesions) for index in range(n)]


def list_images(source: str | Path, allow_outside: bool = False) -> list[Image]:
    """All images of a folder (searched through) or a manifest CSV, not yet decoded.

    A manifest has a column `path`, relative to its own folder, and may have `laterality`, `view`, `patient_id` and any
    further columns; each of them can define subsets. Its paths stay below its folder unless `allow_outside`. What it
    leaves open is filled in from DICOM tags and file names.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.is_file() and not _hidden(file, path) and is_image(file)
        )
        images = [_from_file(file, file.relative_to(path).as_posix(), {}) for file in found]
        if not images:
            raise InputError(f"{path}: found no images; expected PNG, TIFF, JPEG, .npy or DICOM files in this folder")
        return images
    if path.is_file() and path.suffix.lower() == ".csv":
        return _read_manifest(path, allow_outside)
    there = "a file that is no CSV" if path.is_file() else "nothing"
    raise InputError(f"{path}: found {there}, expected a folder of images, a manifest CSV, or 'phantom'")


def _phantom(index: int, seed: int, size: tuple[int, int], lesions: int) -> Image:
    laterality, view, patient_id = phantom_labels(index)
    name = f"phantom:{seed}/{index}"
    decode = partial(decode_phantom, index, seed, size, lesions)
    return Image(name, name, decode, laterality, view, patient_id)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read_manifest(path: Path, allow_outside: bool) -> list[Image]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: manifest cannot be read ({error}); expected a CSV in UTF-8") from error
    if "path" not in columns:
        raise InputError(f"{path}: found columns {', '.join(columns) or 'none'}; expected a column 'path'")
    if not rows:
        raise InputError(f"{path}: the manifest has no rows; expected one per image")
    _refuse_repeats(path, (row["path"] for row in rows))
    return [_from_row(path, number, row, allow_outside) for number, row in enumerate(rows, start=2)]


def _refuse_repeats(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names, start=2):
        if name in seen:
            raise InputError(f"{path}, line {number}: image '{name}' is listed twice; expected each image once")
        seen.add(name)


def _from_row(manifest: Path, number: int, row: dict[str | None, str], allow_outside: bool) -> Image:
    if None in row or None in row.values():
        raise InputError(f"{manifest}, line {number}: number of fields differs from the header's; mend the line")
    values = {str(key): value.strip() for key, value in row.items()}
    name = values.pop("path")
    if not name:
        raise InputError(f"{manifest}, line {number}: empty path; expected an image file")
    if "\0" in name:
        raise InputError(f"{manifest}, line {number}: a path with a zero byte; expected an image file")
    if not allow_outside and _leaves(name):
        raise InputError(
            f"{manifest}, line {number}: '{name}' lies outside the manifest's folder; move it there, or ask for "
            "--allow-outside"
        )
    side = values.get("laterality", "")
    if side and not parse_laterality(side):
        raise InputError(f"{manifest}, line {number}: laterality '{side}' not understood; expected L, R or nothing")
    return _from_file(manifest.parent / name, name, values)


def _leaves(name: str) -> bool:
    """Whether a path leads out of the folder to which it is relative; what links do is up to who made them."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def _from_file(file: Path, name: str, values: dict[str, str]) -> Image:
    """What is known about a file without decoding it: manifest first, then DICOM tags, then its name."""
    header = read_header(file) if is_dicom(file) else None
    further = {key: value for key, value in values.items() if key not in ("laterality", "view", "patient_id", "id")}
    sides = (parse_laterality(values.get("laterality", "")), header.laterality if header else "")
    views = (values.get("view", ""), header.view if header else "")
    return Image(
        id=values.get("id") or name,
        path=name,
        decode=partial(read_image, file),
        file=file,
        laterality=next(filter(None, sides), "") or laterality_from_name(file.stem),
        view=next(filter(None, views), "") or view_from_name(file.stem),
        patient_id=values.get("patient_id") or (header.patient_id if header else ""),
        pixel_spacing=header.pixel_spacing if header else float("nan"),
        columns=further,
    )
