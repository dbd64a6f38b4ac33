"""Examples from phantoms, manifests and folders of public data sets; parts that share no patient."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from erf.box import Box
from erf.cli import app
from erf.datasets import Example, Finding, load_examples, split_by_patient
from erf.datasets.layouts import layout_of
from erf.errors import InputError
from erf.images import Image, draw_phantom


def picture(path: Path, size: tuple[int, int] = (12, 16), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    shape = (*size, 3) if mode == "RGB" else size
    Pillow.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)


def image(name: str, patient: str = "") -> Image:
    def decode() -> None:
        raise AssertionError("not decoded here")

    return Image(name, name, decode, patient_id=patient)  # type: ignore[arg-type]


def test_half_of_the_phantoms_have_the_finding_that_is_drawn() -> None:
    examples = load_examples("phantom", n=10, seed=3, size=(208, 160))
    assert examples.classes == ("negative", "positive")
    assert Counter(example.labels for example in examples) == {("negative",): 5, ("positive",): 5}
    for number, example in enumerate(examples):
        lesions = 1 if example.labels == ("positive",) else 0
        drawn = draw_phantom(number, 3, (208, 160), lesions)
        np.testing.assert_array_equal(example.image.decode().pixels[0], drawn.pixels)
        assert [(one.kind, one.box) for one in example.findings] == [(one.label, one.box) for one in drawn.lesions]
        assert (example.image.laterality, example.patient) == (drawn.laterality, drawn.patient_id)


def test_a_finding_brightens_its_box() -> None:
    """The pixels of a phantom with a finding differ from those without in its box, but for the noise."""
    (finding,) = load_examples("phantom", n=2, size=(832, 640)).examples[1].findings or [None]
    if finding is None:
        ((finding,),) = [one.findings for one in load_examples("phantom", n=2, size=(832, 640)) if one.findings]
    number = next(n for n, one in enumerate(load_examples("phantom", n=2, size=(832, 640))) if one.findings)
    top, left, bottom, right = finding.box
    with_it, without = (draw_phantom(number, 0, (832, 640), n).pixels.astype(float) for n in (1, 0))
    change = with_it - without
    assert change[top:bottom, left:right].mean() > 10 * abs(change).mean()


def test_size_is_the_root_of_the_area() -> None:
    assert Finding(Box(10, 20, 19, 36)).size == 12  # 9 x 16


def test_a_manifest_tells_labels_boxes_masks_and_parts(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text(
        "path,label,boxes,finding,mask,split,patient_id,magnification\n"
        "a.png,cancer,1 2 3 4; 5 6 7 9,mass; calcifications,masks/a.png,training,p1,40X\n"
        "b.png,healthy,,,,valid,p2,40X\n"
        "c.png,healthy,2.4 2.6 9 9,mass,,,p3,100X\n"
    )
    found = load_examples(tmp_path / "m.csv", classes=("healthy", "cancer"))
    first, second, third = found
    assert found.classes == ("healthy", "cancer")
    assert load_examples(tmp_path / "m.csv").classes == ("cancer", "healthy")
    assert first.findings == (Finding(Box(1, 2, 3, 4), "mass"), Finding(Box(5, 6, 7, 9), "calcifications"))
    assert (first.mask, first.split, first.patient) == (tmp_path / "masks/a.png", "train", "p1")
    assert (second.findings, second.mask, second.split) == ((), None, "val")
    assert third.findings == (Finding(Box(2, 3, 9, 9), "mass"),)
    assert [one.image.id for one in found.where("magnification", "100X")] == ["c.png"]
    with pytest.raises(InputError, match=r"no images with magnification '7X'; found '100X', '40X'"):
        found.where("magnification", "7X")
    with pytest.raises(InputError, match=r"no images of split 'test'; found none, train, val"):
        found.of_split("test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,x,1 2 3,,", r"box '1 2 3'; expected 'top left bottom right'"),
        ("a.png,x,5 2 5 9,,", r"box '5 2 5 9' is empty"),
        ("a.png,y,,,", r"found label 'y', expected one of x, z"),
        ("a.png,x,,../b.png,", r"mask '\.\./b\.png' lies outside"),
        ("a.png,x,,,later", r"split 'later'; expected train, val, test"),
    ],
)
def test_what_a_manifest_may_not_hold(tmp_path: Path, row: str, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(f"path,label,boxes,mask,split\n{row}\n")
    with pytest.raises(InputError, match=message):
        split_by_patient(load_examples(tmp_path / "m.csv", classes=("x", "z")).examples)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="a folder without labels; expected a manifest CSV"):
        load_examples(tmp_path)


def test_parts_share_no_patient_and_do_not_depend_on_the_order() -> None:
    examples = [Example(image(f"{p}-{k}", f"p{p}"), ("x",)) for p in range(20) for k in range(1 + p % 3)]
    parts = split_by_patient(examples, (0.7, 0.1, 0.2), seed=4)
    by_patient: dict[str, set[str]] = {}
    for one in parts:
        by_patient.setdefault(one.patient, set()).add(one.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert Counter(split for splits in by_patient.values() for split in splits) == {"train": 14, "val": 2, "test": 4}
    again = split_by_patient(examples[::-1], (0.7, 0.1, 0.2), seed=4)
    assert {one.image.id: one.split for one in again} == {one.image.id: one.split for one in parts}
    other = split_by_patient(examples, (0.7, 0.1, 0.2), seed=5)
    assert {one.image.id: one.split for one in other} != {one.image.id: one.split for one in parts}


def test_labels_of_patients_are_split_on_their_own() -> None:
    examples = [Example(image(f"{n}", f"p{n}"), ("ab"[n % 2],)) for n in range(20)]
    parts = split_by_patient(examples)
    assert Counter((one.labels[0], one.split) for one in parts) == {
        (label, split): count for label in "ab" for split, count in (("train", 8), ("val", 1), ("test", 1))
    }


def test_patients_with_several_labels_are_split_together() -> None:
    examples = [Example(image(f"{n}", f"p{n // 2}"), ("ab"[n % 2],)) for n in range(40)]
    parts = split_by_patient(examples)
    assert Counter(one.split for one in parts) == {"train": 32, "val": 4, "test": 4}


def test_every_part_with_a_share_gets_a_patient() -> None:
    examples = [Example(image(str(number), str(number))) for number in range(3)]
    assert {one.split for one in split_by_patient(examples)} == {"train", "val", "test"}
    assert Counter(one.split for one in split_by_patient(examples, (0.5, 0.5, 0))) == {"train": 2, "val": 1}


def test_parts_that_the_data_name_are_kept() -> None:
    examples = [Example(image("a", "p"), split="test"), Example(image("b", "p")), Example(image("c", "q"))]
    parts = split_by_patient(examples)
    assert [one.split for one in parts[:2]] == ["test", "test"]
    torn = [Example(image("a", "p"), split="test"), Example(image("b", "p"), split="train")]
    with pytest.raises(InputError, match="patient 'p' is in splits 'test' and 'train'"):
        split_by_patient(torn)


def test_breakhis_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "BreaKHis_v1" / "histology_slides" / "breast"
    for side, kind, slide in (("B", "A", "14-22549AB"), ("M", "DC", "14-2523")):
        for zoom in (40, 200):
            folder = (
                root
                / {"B": "benign", "M": "malignant"}[side]
                / "SOB"
                / "kind"
                / f"SOB_{side}_{kind}_{slide}"
                / f"{zoom}X"
            )
            picture(folder / f"SOB_{side}_{kind}-{slide}-{zoom}-001.png")
    assert layout_of(tmp_path) == "BreakHis"
    found = load_examples(tmp_path)
    assert found.classes == ("benign", "malignant")
    told = [(one.labels[0], one.image.value("magnification"), one.image.value("finding"), one.patient) for one in found]
    assert told == [
        ("benign", "200X", "adenosis", "14-22549AB"),
        ("benign", "40X", "adenosis", "14-22549AB"),
        ("malignant", "200X", "ductal carcinoma", "14-2523"),
        ("malignant", "40X", "ductal carcinoma", "14-2523"),
    ]
    assert found.examples[0].image.decode().pixels.shape == (3, 12, 16)


def test_a_public_folder_becomes_a_manifest(tmp_path: Path) -> None:
    """What the file tells is what the folder tells, from wherever it lies."""
    for number in (3, 7):
        picture(tmp_path / "isic" / "ISIC2018_Task1-2_Test_Input" / f"ISIC_000000{number}.jpg")
        picture(
            tmp_path / "isic" / "ISIC2018_Task1_Test_GroundTruth" / f"ISIC_000000{number}_segmentation.png", mode="L"
        )
    result = CliRunner().invoke(app, ["manifest", str(tmp_path / "isic"), "-o", str(tmp_path / "m.csv")])
    assert result.exit_code == 0, result.output
    folder, file = load_examples(tmp_path / "isic"), load_examples(tmp_path / "m.csv")
    for one, other in zip(folder, file, strict=True):
        assert (one.split, one.labels, one.mask.resolve()) == (other.split, other.labels, other.mask.resolve())  # type: ignore[union-attr]
        np.testing.assert_array_equal(one.image.decode().pixels, other.image.decode().pixels)
    again = CliRunner().invoke(app, ["manifest", str(tmp_path / "isic"), "-o", str(tmp_path / "m.csv")])
    assert again.exit_code == 2
    none = CliRunner().invoke(app, ["manifest", str(tmp_path), "-o", str(tmp_path / "n.csv")])
    assert none.exit_code == 0  # the set may lie deeper
    (tmp_path / "empty").mkdir()
    none = CliRunner().invoke(app, ["manifest", str(tmp_path / "empty")])
    assert "found no known public data set" in " ".join(none.output.split())


@pytest.mark.parametrize(
    ("pictures", "masks", "split"),
    [
        ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "train"),
        ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "test"),
        ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", "val"),
    ],
)
def test_isic_is_recognised(tmp_path: Path, pictures: str, masks: str, split: str) -> None:
    for number in (3, 7):
        picture(tmp_path / pictures / f"ISIC_000000{number}.jpg")
        picture(tmp_path / masks / f"ISIC_000000{number}_segmentation.png", mode="L")
    assert layout_of(tmp_path) == "ISIC"
    found = load_examples(tmp_path, classes=("background", "lesion"))
    assert [(one.split, one.mask) for one in found] == [
        (split, tmp_path / masks / f"ISIC_000000{number}_segmentation.png") for number in (3, 7)
    ]
    (tmp_path / pictures / "ISIC_0000007.jpg").unlink()
    with pytest.raises(InputError, match=r"found no image ISIC_0000007\.jpg"):
        load_examples(tmp_path)


def test_chest_radiographs_are_recognised(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        picture(tmp_path / "images_001" / "images" / f"0000000{number}_000.png", mode="L")
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,View Position\n"
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,PA\n"
        "00000002_000.png,No Finding,0,2,AP\n"
        "00000003_000.png,Hernia,0,3,PA\n"
        "00000004_000.png,Hernia,0,4,PA\n"
    )
    (tmp_path / "test_list.txt").write_text("00000003_000.png\n")
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Cardiomegaly,2.0,3.0,4.0,5.0\n"
    )
    assert layout_of(tmp_path) == "ChestX-ray14"
    found = load_examples(tmp_path)
    assert found.classes == ("Cardiomegaly", "Emphysema", "Hernia")
    assert [one.labels for one in found] == [("Cardiomegaly", "Emphysema"), (), ("Hernia",)]
    assert [(one.split, one.patient, one.image.view) for one in found] == [
        ("", "1", "PA"),
        ("", "2", "AP"),
        ("test", "3", "PA"),
    ]
    assert found.examples[0].findings == (Finding(Box(3, 2, 8, 6), "Cardiomegaly"),)
