"""Read the folders of public data sets, as published, like manifests.

BreakHis: Spanhol et al. A dataset for breast cancer histopathological image classification. IEEE TBME 2016.
ISIC: Codella et al. 2018 (arXiv 1710.05006 and 1902.03368), lesion segmentation of 2017 and 2018.
ChestX-ray14: Wang et al. ChestX-ray8. CVPR 2017 (arXiv 1705.02315), with the 14 labels of its later release.

Nothing is downloaded or decoded: all information comes from file names, folders and tables.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from erf.datasets.example import NO_LABEL
from erf.errors import InputError
from erf.images import Image, read_image
from erf.images.table import read_records

_BREAKHIS = re.compile(
    r"SOB_(?P<side>[BM])_(?P<kind>[A-Z]+)-(?P<year>\d+)-(?P<slide>[0-9A-Z]+)-(?P<zoom>\d+)-(?P<number>\d+)\.png$"
)
_BREAKHIS_LABELS = {"B": "benign", "M": "malignant"}
_BREAKHIS_KINDS = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumor",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
_ISIC_MASKS = re.compile(r"^ISIC.*?(?P<split>Training|Validation|Test)_(?:v2_)?(?:Part1_)?GroundTruth$")
_ISIC_MASK = re.compile(r"^(?P<id>ISIC_\d+)_segmentation\.png$")
_ISIC_SPLITS = {"Training": "train", "Validation": "val", "Test": "test"}
_CHEST_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_CHEST_HEALTHY = "No Finding"


def recognise(folder: Path) -> list[Image] | None:
    """List the images of a public data set with their columns; None for any other folder."""
    for read in _LAYOUTS.values():
        images = read(folder)
        if images:
            return images
    return None


def layout_of(folder: Path) -> str:
    """Return the name of the data set in a folder; '' for any other folder."""
    return next((name for name, read in _LAYOUTS.items() if read(folder)), "")


def _breakhis(folder: Path) -> list[Image]:
    """List BreakHis: benign and malignant tissue at four magnifications; the slide number identifies the patient."""
    found = []
    for file in sorted(folder.rglob("SOB_*.png")):
        match = _BREAKHIS.match(file.name)
        if match:
            columns = {
                "label": _BREAKHIS_LABELS[match["side"]],
                "finding": _BREAKHIS_KINDS.get(match["kind"], match["kind"]),
                "magnification": f"{match['zoom']}X",
            }
            found.append(_image(file, folder, columns, f"{match['year']}-{match['slide']}"))
    return found


def _isic(folder: Path) -> list[Image]:
    """List ISIC: dermoscopic images with the outline of the lesion; patients are not published."""
    found = []
    for masks in sorted(path for path in folder.rglob("ISIC*GroundTruth") if path.is_dir()):
        match = _ISIC_MASKS.match(masks.name)
        if not match:
            continue
        pictures = {file.stem: file for near in masks.parent.iterdir() if near != masks for file in near.glob("*.jpg")}
        for mask in sorted(masks.iterdir()):
            name = _ISIC_MASK.match(mask.name)
            if name is None:
                continue
            if name["id"] not in pictures:
                raise InputError(f"{mask}: found no image {name['id']}.jpg next to its folder; is the data set whole?")
            columns = {"mask": mask.relative_to(folder).as_posix(), "split": _ISIC_SPLITS[match["split"]]}
            found.append(_image(pictures[name["id"]], folder, columns, ""))
    return found


def _chest(folder: Path) -> list[Image]:
    """List ChestX-ray14: chest radiographs with any of 14 labels; the published test list is the test split."""
    table = next((folder / name for name in _CHEST_TABLES if (folder / name).is_file()), None)
    if table is None:
        return []
    files = {file.name: file for file in folder.rglob("*.png")}
    tested = _lines(folder / "test_list.txt")
    boxes = _chest_boxes(folder / "BBox_List_2017.csv")
    found = []
    for row in _table(table, ("Image Index", "Finding Labels", "Patient ID")):
        name = row["Image Index"]
        if name not in files:
            continue
        healthy = row["Finding Labels"] == _CHEST_HEALTHY
        columns = {
            "label": NO_LABEL if healthy else row["Finding Labels"],
            "split": "test" if name in tested else "",
            "view": row.get("View Position", ""),
        } | boxes.get(name, {})
        found.append(_image(files[name], folder, columns, row["Patient ID"]))
    if not found:
        raise InputError(f"{table}: none of its images is in {folder}; unpack the archives of images there")
    return found


def _chest_boxes(path: Path) -> Mapping[str, dict[str, str]]:
    """Read the boxes and findings of each image; the published header does not match the columns, so it is skipped."""
    if not path.is_file():
        return {}
    boxes: dict[str, dict[str, str]] = {}
    for row in _records(path)[1:]:
        try:
            name, kind = row[0], row[1]
            left, top, width, height = (float(number) for number in row[2:6])
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}: found row {row[:6]}; expected the table as it is published") from error
        box = f"{top:.0f} {left:.0f} {top + height:.0f} {left + width:.0f}"
        columns = boxes.setdefault(name, {"boxes": "", "finding": ""})
        columns["boxes"] = f"{columns['boxes']}; {box}".removeprefix("; ")
        columns["finding"] = f"{columns['finding']}; {kind}".removeprefix("; ")
    return boxes


def _table(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    records = _records(path)
    header = records[0] if records else []
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(f"{path}: found no column '{missing[0]}'; expected the table as it is published")
    return [dict.fromkeys(header, "") | dict(zip(header, row, strict=False)) for row in records[1:]]


def _records(path: Path) -> list[list[str]]:
    return [list(cells) for _, cells in read_records(path)]


def _lines(path: Path) -> frozenset[str]:
    """Read the names in a list with one name per line; empty if the file is missing."""
    return frozenset(cells[0] for _, cells in read_records(path)) if path.is_file() else frozenset()


def _image(file: Path, folder: Path, columns: Mapping[str, str], patient: str) -> Image:
    name = file.relative_to(folder).as_posix()
    view = columns.get("view", "")
    further = {key: value for key, value in columns.items() if key != "view" and value}
    return Image(name, name, partial(read_image, file), view=view, patient_id=patient, columns=further, file=file)


_LAYOUTS: dict[str, Callable[[Path], list[Image]]] = {
    "BreakHis": _breakhis,
    "ISIC": _isic,
    "ChestX-ray14": _chest,
}
