"""Equal runs write equal files, and a change of one value, attribute or dataset is found."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from torch import nn

import erf
from scripts.compare_files import compare_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of the same run."""
    folder = tmp_path_factory.mktemp("files")
    network = nn.Sequential(nn.Conv2d(1, 2, 5, 2, 2), nn.SiLU(), nn.Conv2d(2, 2, 3))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, 32, 24)).astype(np.float32) for _ in range(4)]
    for name in ("one", "two"):
        images = erf.from_arrays(arrays, laterality=["left", "right"] * 2)
        result = erf.compute(network, images, layer="2", definitions=("abs", "signed"), device="cpu")
        erf.save(result, folder / f"{name}.h5")
    return [folder / "one.h5", folder / "two.h5"]


def test_equal_runs_write_equal_files(files: list[Path]) -> None:
    assert compare_files(*files) == []


def _change_value(file: h5py.File) -> None:
    dataset = next(file[name]["abs"]["across_rows"] for name in [next(f"subsets/{key}" for key in file["subsets"])])
    dataset[3] = np.nextafter(dataset[3], np.inf)


CHANGES = {
    "across_rows": _change_value,
    "layer": lambda file: file.attrs.__setitem__("layer", "1"),
    "extra": lambda file: file.create_dataset("extra", data=1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found(files: list[Path], tmp_path: Path, name: str) -> None:
    changed = tmp_path / "changed.h5"
    changed.write_bytes(files[1].read_bytes())
    with h5py.File(changed, "r+") as file:
        CHANGES[name](file)
    (found,) = compare_files(files[0], changed)
    assert name in found
