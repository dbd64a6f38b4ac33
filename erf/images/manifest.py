"""Listing of images from a folder, a manifest CSV or the phantom generator."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from erf.errors import InputError
from erf.images.dicom import is_dicom, read_header
from erf.images.image import Image, leaves_folder
from erf.images.laterality import laterality_from_name, parse_laterality, view_from_name
from erf.images.phantom import decode_phantom, phantom_labels
from erf.images.readers import is_image, read_image
from erf.images.table import Row, identity, read_table
from erf.text import printable

PHANTOM = "phantom"
MAX_PHANTOMS = 100_000
"""Largest number of phantoms in a run; a single option can ask for hours of computation."""


def list_phantoms(
    n: int, seed: int, size: tuple[int, int], lesions: int = 0, inputs: Sequence[str] = ()
) -> list[Image]:
    """List the first n phantoms of a seed, left and right in turn.

    Args:
        n: Number of phantoms, or of cases with `inputs`.
        seed: Seed of the phantoms.
        size: (height, width) in pixels.
        lesions: Number of findings in each phantom.
        inputs: Names of the inputs of a network that takes several; a case has a phantom of the same side for each.

    Returns:
        The images or cases, not yet generated.

    Raises:
        InputError: n exceeds `MAX_PHANTOMS`.
    """
    if n > MAX_PHANTOMS:
        raise InputError(f"{n} phantoms asked for; expected at most {MAX_PHANTOMS}")
    if not inputs:
        return [_phantom(index, seed, size, lesions) for index in range(n)]
    cases = []
    for index in range(n):
        # Sides alternate: an even difference of indices keeps the side.
        parts = [_phantom(index + 2 * n * place, seed, size, lesions) for place in range(len(inputs))]
        cases.append(_case(parts, parts[0].id))
    return cases


def _case(parts: Sequence[Image], name: str) -> Image:
    """Combine images that a network takes together; the case has the side and patient on which they agree."""
    first = parts[0]
    sides, patients = {part.laterality for part in parts}, {part.patient_id for part in parts}
    return Image(
        id=name,
        path="; ".join(part.path for part in parts),
        decode=first.decode,
        laterality=first.laterality if len(sides) == 1 else "",
        patient_id=first.patient_id if len(patients) == 1 else name,
        columns=first.columns,
        parts=tuple(parts),
    )


def list_images(source: str | Path, allow_outside: bool = False, inputs: Sequence[str] = ()) -> list[Image]:
    """List all images of a folder, searched recursively, or of a manifest CSV.

    A manifest has a column `path`, relative to its own folder, and may have `laterality`, `view`, `patient_id` and any
    other columns; each of them can define subsets. Missing values are filled in from DICOM tags and file names.

    Args:
        source: Folder or manifest CSV.
        allow_outside: Whether paths of the manifest may lead outside its folder.
        inputs: Names of the inputs of a network that takes several; the manifest then has a column `path:NAME` for
            each instead of `path`, and a row is a case.

    Returns:
        The images or cases, not yet decoded.

    Raises:
        InputError: The source is neither, has no images, or the manifest is invalid.
    """
    path = Path(source)
    if inputs and not (path.is_file() and path.suffix.lower() == ".csv"):
        raise InputError(
            f"{path}: the network takes {len(inputs)} inputs; expected a manifest CSV with columns "
            f"{', '.join(f'path:{name}' for name in inputs)}"
        )
    if path.is_dir():
        images = [_from_file(file, file.relative_to(path).as_posix(), {}) for file in _files(path)]
        if not images:
            raise InputError(f"{path}: found no images; expected PNG, TIFF, JPEG, .npy or DICOM files in this folder")
        return images
    if path.is_file() and path.suffix.lower() == ".csv":
        return _read_manifest(path, allow_outside, inputs)
    there = "a file that is no CSV" if path.is_file() else "no file" if path.exists() else "nothing"
    raise InputError(f"{path}: found {there}, expected a folder of images, a manifest CSV, or 'phantom'")


def _files(folder: Path) -> list[Path]:
    """Sorted images of a folder; a file with several names, such as links within the folder, is listed once."""
    found = (file for file in folder.rglob("*") if file.is_file() and not _hidden(file, folder) and is_image(file))
    files: dict[object, Path] = {}
    for file in sorted(found, key=lambda file: (file.is_symlink(), file)):
        files.setdefault(identity(file), file)
    return sorted(files.values())


def _phantom(index: int, seed: int, size: tuple[int, int], lesions: int) -> Image:
    laterality, view, patient_id = phantom_labels(index)
    name = f"phantom:{seed}/{index}"
    decode = partial(decode_phantom, index, seed, size, lesions)
    return Image(name, name, decode, laterality, view, patient_id)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read_manifest(path: Path, allow_outside: bool, inputs: Sequence[str]) -> list[Image]:
    columns, rows = read_table(path)
    wanted = [f"path:{name}" for name in inputs] or ["path"]
    missing = [name for name in wanted if name not in columns]
    if missing:
        expected = f"a column '{missing[0]}'"
        raise InputError(f"{path}: found columns {', '.join(columns) or 'none'}; expected {expected}")
    if not rows:
        raise InputError(f"{path}: the manifest has no rows; expected one per image")
    if inputs:
        images = [_case_of_row(path, row, allow_outside, wanted) for row in rows]
    else:
        images = [_from_row(path, row, allow_outside) for row in rows]
    _refuse_repeats(path, rows, images)
    return images


def _case_of_row(manifest: Path, row: Row, allow_outside: bool, wanted: Sequence[str]) -> Image:
    """Make a case from a row; each image has the row's columns, with `view:NAME` and `laterality:NAME` if given."""
    parts = []
    for column in wanted:
        name = column.removeprefix("path:")
        own = {key: value for key, value in row.values.items() if not key.startswith("path:")}
        for key in ("view", "laterality"):
            if f"{key}:{name}" in row.values:
                own[key] = row.values[f"{key}:{name}"]
        own.pop("id", None)
        parts.append(_from_row(manifest, Row(row.line, own | {"path": row.values[column]}), allow_outside))
    return _case(parts, row.values.get("id") or f"case:{row.line}")


def _refuse_repeats(manifest: Path, rows: Sequence[Row], images: Sequence[Image]) -> None:
    """Raise `InputError` for repeated files or ids: an image counts once, and merged results identify it by its id."""
    ids: dict[str, int] = {}
    files: dict[object, int] = {}
    for row, image in zip(rows, images, strict=True):
        same = tuple(identity(part.file) for part in image.parts or (image,) if part.file)
        before = files.setdefault(same, row.line)
        if before != row.line:
            raise InputError(
                f"{manifest}, line {row.line}: image '{image.path}' is listed twice, first in line {before}; expected "
                "each image once"
            )
        before = ids.setdefault(image.id, row.line)
        if before != row.line:
            raise InputError(
                f"{manifest}, line {row.line}: id '{image.id}' is that of line {before}; expected an id for each image"
            )


def _from_row(manifest: Path, row: Row, allow_outside: bool) -> Image:
    values = dict(row.values)
    name = _with_slashes(manifest.parent, values.pop("path"))
    if not name:
        raise InputError(f"{manifest}, line {row.line}: empty path; expected an image file")
    if not allow_outside and leaves_folder(name):
        raise InputError(
            f"{manifest}, line {row.line}: '{name}' lies outside the manifest's folder",
            remedy="move it there, or ask for `allow_outside`",
        )
    side = values.get("laterality", "")
    if side and not parse_laterality(side):
        raise InputError(f"{manifest}, line {row.line}: laterality '{side}' not understood; expected L, R or nothing")
    image = _from_file(manifest.parent / name, name, values)
    return replace(image, folder=manifest.parent, allow_outside=allow_outside)


def _with_slashes(folder: Path, name: str) -> str:
    """Convert a Windows path to this system's separators, unless a file has exactly that name."""
    return name if os.sep in name or "\\" not in name or (folder / name).exists() else name.replace("\\", os.sep)


def _from_file(file: Path, name: str, values: dict[str, str]) -> Image:
    """Make an image from a file without decoding it; values from the manifest, then DICOM tags, then the file name."""
    header = read_header(file) if is_dicom(file) else None
    further = {key: value for key, value in values.items() if key not in ("laterality", "view", "patient_id", "id")}
    sides = (parse_laterality(values.get("laterality", "")), header.laterality if header else "")
    views = (values.get("view", ""), header.view if header else "")
    # Result files accept text only: undecodable bytes and control characters are escaped.
    name = printable(name).replace("\n", "\\n")
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
