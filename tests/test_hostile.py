"""Files that nobody vouches for: whatever they hold, one clear error or a result, never a traceback or a flood.

`ERF_FUZZ=20000 pytest tests/test_hostile.py` looks much longer.
"""

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from safetensors.torch import save_file

import erf
from erf.errors import ErfError, FormatError, ImageError
from erf.images import Framing, Image, list_images, read_image
from erf.images.dicom import MAX_INFLATED
from erf.models import WeightsError, load_weights
from tests.conftest import small_network
from tests.test_dicom import compress, write

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("ERF_FUZZ", "150"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Some bytes changed, cut away or put in, in places given as shares of the length."""
    share = st.floats(0, 1, exclude_max=True)
    cuts = draw(
        st.lists(
            st.tuples(share, st.sampled_from(["flip", "cut", "insert", "zero"]), st.binary(max_size=8)),
            min_size=1,
            max_size=4,
        )
    )

    def damage(content: bytes) -> bytes:
        for place, kind, extra in cuts:
            at = int(place**2 * len(content))  # headers are at the front
            if kind == "flip":
                content = content[:at] + bytes(byte ^ 0x55 for byte in content[at : at + 2]) + content[at + 2 :]
            elif kind == "cut":
                content = content[:at]
            elif kind == "insert":
                content = content[:at] + extra + content[at:]
            else:
                content = content[:at] + bytes(4) + content[at + 4 :]
        return content

    return damage


@contextmanager
def named_error(kind: type[Exception], name: str) -> Iterator[None]:
    """Nothing goes wrong, or one error that names the file."""
    message = name
    try:
        yield
    except kind as error:
        message = str(error)
    assert name in message
    assert "Traceback" not in message


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small valid files of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    pixels = erf.draw_phantom(0, size=(96, 64)).pixels[0]
    Pillow.fromarray(pixels).save(folder / "a.png")
    Pillow.fromarray(pixels).save(folder / "a.tif")
    Pillow.fromarray((pixels >> 8).astype(np.uint8)).save(folder / "a.jpg")
    np.save(folder / "a.npy", pixels)
    write(folder / "raw.dcm")
    for syntax in ("RLELossless", "JPEGLossless", "JPEGLSLossless", "JPEG2000Lossless"):
        compress(folder / "raw.dcm", folder / f"{syntax}.dcm", syntax)
    save_file({"a": torch.ones(3, 4)}, folder / "w.safetensors")
    torch.save({"state_dict": {"a": torch.ones(3, 4)}}, folder / "w.pt")
    torch.save({"a": torch.ones(3, 4)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "m.csv").write_text("path,laterality,view,patient_id,site\na.png,L,CC,p1,A\na.tif,R,MLO,p2,B\n")
    return folder


IMAGES = ["a.png", "a.tif", "a.jpg", "a.npy", "raw.dcm", "RLELossless.dcm", "JPEGLossless.dcm", "JPEGLSLossless.dcm"]


@pytest.mark.parametrize("name", [*IMAGES, "JPEG2000Lossless.dcm"])
def test_damaged_images(name: str, originals: Path, tmp_path: Path) -> None:
    content, path = (originals / name).read_bytes(), tmp_path / name

    @FUZZ
    @given(damages())
    def check(damage: Damage) -> None:
        path.write_bytes(damage(content))
        with named_error(ImageError, name):
            assert read_image(path).pixels.size < 2**28

    check()


class Weights(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(3, 4))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "old.pt"])
def test_damaged_weights(name: str, originals: Path, tmp_path: Path) -> None:
    content, path = (originals / name).read_bytes(), tmp_path / name

    @FUZZ
    @given(damages())
    def check(damage: Damage) -> None:
        path.write_bytes(damage(content))
        with named_error(WeightsError, name):
            load_weights(Weights(), path)

    check()


def test_damaged_manifests(originals: Path, tmp_path: Path) -> None:
    content, path = (originals / "m.csv").read_bytes(), tmp_path / "m.csv"

    @FUZZ
    @given(damages())
    def check(damage: Damage) -> None:
        path.write_bytes(damage(content))
        images: list[Image] = []
        with named_error(ErfError, "m.csv"):
            images = list_images(path)
        for image in images:
            with suppress(ImageError):
                image.decode()

    check()


@FUZZ
@given(text=st.text(max_size=200))
def test_manifests_of_any_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("path,laterality\n" + text, encoding="utf-8", errors="replace")
    with named_error(ErfError, "any.csv"):
        list_images(path)


# Headers that claim too much.

SIDE = 100_000


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def npy(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(1000)


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in some 100 kB."""
    file, compressor = io.BytesIO(), zlib.compressobj(9)
    for _ in range(20_000):
        file.write(compressor.compress(bytes(40_001)))
    file.write(compressor.flush())
    content = png(20_000, 20_000)
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    body = file.getvalue()
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return content[:start] + chunk + content[end:]


def dicom(folder: Path, syntax: str) -> bytes:
    """Compressed pixels whose own header claims 60,000 x 60,000."""
    write(folder / "raw.dcm")
    compress(folder / "raw.dcm", folder / "c.dcm", syntax)
    data = pydicom.dcmread(folder / "c.dcm")
    size, big = struct.pack(">HH", 96, 64), struct.pack(">HH", 60_000, 60_000)
    if syntax == "JPEG2000Lossless":
        size, big = struct.pack(">II", 64, 96), struct.pack(">II", 60_000, 60_000)
    assert size in data.PixelData
    data.PixelData = data.PixelData.replace(size, big)
    data.save_as(folder / "c.dcm", enforce_file_format=True)
    return (folder / "c.dcm").read_bytes()


@contextmanager
def limited_memory() -> Iterator[None]:
    """At most 1 GB of address space more than now."""
    import psutil

    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.png", lambda _: png(SIDE, SIDE), "exceeds limit"),
        ("bomb.png", lambda _: bomb(), "exceeds limit"),
        ("a.npy", lambda _: npy((SIDE, SIDE)), "the header claims"),
        ("b.npy", lambda _: npy((SIDE, 1000)), "fewer numbers"),
        ("c.npy", lambda _: npy((-1, 1000)), "found shape"),
        ("a.dcm", lambda folder: dicom(folder, "JPEGLSLossless"), "claims 60000x60000"),
        ("b.dcm", lambda folder: dicom(folder, "JPEGLossless"), "claims 60000x60000"),
        ("c.dcm", lambda folder: dicom(folder, "JPEG2000Lossless"), "claims 60000x60000"),
    ],
)
def test_claims_are_refused_before_anything_is_allocated(
    name: str, make: Callable[[Path], bytes], message: str, tmp_path: Path
) -> None:
    content = make(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert len(content) < 1_000_000
    with limited_memory(), pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / name)
    assert "memory" not in str(caught.value).lower()


def deflated(content: bytes, rows: int, meta_comment: int = 0) -> bytes:
    """A deflated data set of so many rows of 256 columns, with a long element before its transfer syntax."""
    data = Dataset()
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = rows, 256, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    data.file_meta.FileMetaInformationVersion = bytes(meta_comment)  # the first element
    data.PixelData = content
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_deflated_dicom_is_inflated_within_limits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 256), np.uint8)
    (tmp_path / "a.dcm").write_bytes(deflated(pixels.tobytes(), 40, 5000))
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").pixels[0], pixels)
    bomb = deflated(bytes(MAX_INFLATED), 40, 5000)
    assert len(bomb) < 500_000
    (tmp_path / "b.dcm").write_bytes(bomb)
    with limited_memory(), pytest.raises(ImageError, match="inflates to more than 256 MB"):
        read_image(tmp_path / "b.dcm")


def test_only_the_format_of_the_name_is_opened(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for kind in ("WEBP", "BMP", "GIF", "JPEG", "PDF", "EPS"):
        picture.save(tmp_path / "a.png", kind)
        with pytest.raises(ImageError, match=r"a.png: cannot be decoded \(the content is .* of another format"):
            read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n")
    with pytest.raises(ImageError, match="of another format"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".npy", ".dcm", ""])
def test_only_regular_files_are_opened(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    with pytest.raises(ImageError, match="found a pipe; expected a readable image file"):
        read_image(path)
    link = tmp_path / f"b{suffix}"
    link.symlink_to("/dev/zero")
    with pytest.raises(ImageError, match="found a device"):
        read_image(link)
    folder = tmp_path / f"c{suffix}"
    folder.mkdir()
    with pytest.raises(ImageError, match="found a folder"):
        read_image(folder)
    sparse = tmp_path / f"d{suffix}"
    with sparse.open("wb") as file:
        file.truncate(5 << 30)
    with limited_memory(), pytest.raises(ImageError, match="found 5369 MB, at most 1074 MB are read"):
        read_image(sparse)
    (tmp_path / "m.csv").write_text("path\n" + "\n".join(f"{letter}{suffix}" for letter in "abcd"))
    assert len(list_images(tmp_path / "m.csv")) == 4  # without waiting for the pipe


def test_size_behind_long_comments(tmp_path: Path) -> None:
    """Three comments of 60 kB, with a harmless size in each, before that of 65,500 x 65,500."""
    write(tmp_path / "raw.dcm")
    compress(tmp_path / "raw.dcm", tmp_path / "c.dcm", "JPEGLossless")
    data = pydicom.dcmread(tmp_path / "c.dcm")
    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    start = frame.index(b"\xff\xc3")
    comment = frame[start : start + 11] + bytes(60_000)
    comments = 3 * (b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment)
    huge = frame[:start] + comments + frame[start : start + 5] + struct.pack(">HH", 65_500, 65_500) + frame[start + 9 :]
    for syntax in (uid.JPEGLossless, uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit):
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = encapsulate([huge])
        data.save_as(tmp_path / "d.dcm", enforce_file_format=True)
        with (
            limited_memory(),
            pytest.raises(ImageError, match="claims 65500x65500 pixels of 1 samples, expected 96x64"),
        ):
            read_image(tmp_path / "d.dcm")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1e308, -1e308]]), "found pixels from -1e.308 to 1e.308"),
        (np.array([[1.0, 1.0 + 1e-12]]), "constant image"),
        (np.array([[1 + 2j, 0]]), "found complex128 of shape"),
        (np.array([[True, False]]), "found bool of shape"),
        (np.array([[(1, 2.0)]], dtype="i4,f4"), "found .* of shape"),
        (np.array([[1, 2]], dtype="M8[s]"), "found datetime64.s. of shape"),
        (np.array([1.0, 2.0]), "of shape .2,., expected numbers of shape"),
        (np.zeros((0, 4)), "empty image"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match=f"a.npy: .*{message}"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">u2", "<i8", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_number_and_order(dtype: str, order: Any, tmp_path: Path) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").pixels[0], array)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_values_that_cannot_be_standardised(scale: float, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((8, 8)) * scale)
    (image,) = list_images(tmp_path)
    with pytest.raises(ImageError, match="too large or too small to be standardised"):
        Framing((8, 8)).apply(image, image.decode())


def test_large_images_are_still_read(tmp_path: Path) -> None:
    pixels = np.arange(6000 * 5000, dtype=np.uint32).reshape(6000, 5000).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels[0], pixels)


# HDF5: the library itself could crash, so files are read in a process of its own.

READER = """
import sys
from pathlib import Path
import erf
from erf.errors import ErfError
for path in sorted(Path(sys.argv[1]).glob("*.h5")):
    print(path.name, flush=True)
    try:
        result = erf.load(path)
        for subset in result.subsets:
            for definition in result.provenance.definitions:
                result.statistics(subset, definition)
        result.profiles["abs"], result.overview(), result.provenance.described()
    except ErfError as error:
        assert path.name in str(error), error
print("end")
"""


def test_damaged_erf_files(tmp_path: Path) -> None:
    rng = random.Random(4)
    arrays = [np.random.default_rng(index).standard_normal((1, 40, 32)) for index in range(3)]
    result = erf.compute(small_network(), erf.from_arrays(arrays, ["left", "right", ""]), layer="5", device="cpu")
    erf.save(result, tmp_path / "good.h5")
    good = (tmp_path / "good.h5").read_bytes()
    files = min(EXAMPLES, 2000)
    for number in range(files):
        content = bytearray(good)
        if number % 3 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.choice([1, 8, 64])):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / f"{number:05d}.h5").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout.splitlines()[-1], done.stderr[-2000:])
    assert done.stdout.splitlines()[-1] == "end"
    with pytest.raises(FormatError, match=r"00000\.h5"):
        erf.load(tmp_path / "00000.h5")
