"""Images: readers without loss, sides, the draw, the frame."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import erf
from erf.errors import ImageError, InputError
from erf.images import Framing, Image, ImageSet, Sample, draw, list_images, read_image
from erf.images.image import Decoded, Failure
from erf.images.laterality import laterality_from_name, laterality_from_tissue, view_from_name
from erf.images.stream import ahead

RAMP = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20) * 100


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_greyscale_comes_back_bit_by_bit(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"a{suffix}"
    pixels: np.ndarray = (RAMP // 256 if dtype is np.uint8 else RAMP).astype(dtype)
    np.save(path, pixels) if suffix == ".npy" else Pillow.fromarray(pixels).save(path)
    decoded = read_image(path)
    assert decoded.pixels.shape == (1, 30, 20)
    np.testing.assert_array_equal(decoded.pixels[0], pixels)
    assert decoded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_float_arrays_and_colour_are_taken_as_they_are(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 5, 4))
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").pixels, array)
    colour = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    Pillow.fromarray(colour).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, colour.transpose(2, 0, 1))


def write_bad(path: Path, kind: str) -> None:
    if kind == "truncated":
        Pillow.fromarray(RAMP).save(path)
        path.write_bytes(path.read_bytes()[:-60])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no image")
    elif kind == "constant":
        Pillow.fromarray(np.full((5, 4), 7, np.uint16)).save(path)
    elif kind == "nan":
        np.save(path, np.array([[1.0, np.nan]]))
    elif kind == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "alpha":
        Pillow.fromarray(np.zeros((5, 4, 4), np.uint8)).save(path)
    elif kind == "words":
        np.save(path, np.array([["a", "b"]]))
    elif kind == "pages":
        page = Pillow.fromarray(RAMP)
        page.save(path, save_all=True, append_images=[page])
    elif kind == "16-bit colour":
        import struct
        import zlib

        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        rows = b"".join(b"\0" + bytes(range(2 * 3 * 4)) for _ in range(5))
        header = struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("kind", "suffix", "message"),
    [
        ("truncated", ".png", "cannot be decoded .*; the file may be truncated or damaged"),
        ("empty", ".png", "cannot be decoded"),
        ("text", ".tif", "cannot be decoded .the content is damaged or of another format"),
        ("text", ".npy", "cannot be read as a NumPy array"),
        ("text", ".dcm", "DICOM cannot be decoded"),
        ("text", ".xyz", "suffix '.xyz' not known; expected PNG"),
        ("constant", ".png", "constant image .every pixel is 7."),
        ("nan", ".npy", "found NaN or infinite pixels"),
        ("pickle", ".npy", "found object of shape"),
        ("words", ".npy", "found <U1 of shape .1, 2., expected numbers"),
        ("alpha", ".png", "found colour mode RGBA, expected greyscale or RGB"),
        ("pages", ".tif", "found 2 pages, expected a single image"),
        ("16-bit colour", ".png", "16-bit colour would lose bits"),
        ("missing", ".png", "No such file or directory; expected a readable image file"),
    ],
)
def test_a_bad_file_gives_one_clear_line(tmp_path: Path, kind: str, suffix: str, message: str) -> None:
    path = tmp_path / f"bad{suffix}"
    write_bad(path, kind)
    with pytest.raises(ImageError, match=f"bad{suffix}: {message}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "side", "view"),
    [
        ("1_L_CC", "left", "CC"),
        ("0_R-MLO", "right", "MLO"),
        ("patient7_LCC", "left", "CC"),
        ("RMLO-12", "right", "MLO"),
        ("left breast", "left", ""),
        ("case_RIGHT_01", "right", ""),
        ("lesion_042", "", ""),
        ("IMG_0001", "", ""),
        ("L_and_R", "", ""),
        ("mammogram", "", ""),
    ],
)
def test_side_and_view_from_a_name(name: str, side: str, view: str) -> None:
    assert laterality_from_name(name) == side
    assert view_from_name(name) == view


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("size", [(256, 192), (832, 640)])
def test_side_from_the_tissue(index: int, size: tuple[int, int]) -> None:
    phantom = erf.draw_phantom(index, seed=5, size=size)
    assert laterality_from_tissue(phantom.pixels[None]) == phantom.laterality
    assert laterality_from_tissue(phantom.pixels[None, :, ::-1]) != phantom.laterality


def test_a_picture_of_anything_else_has_no_side() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 200, 200))
    assert laterality_from_tissue(noise) == ""
    assert laterality_from_tissue(np.zeros((1, 200, 200))) == ""


def named(lateralities: str) -> list[Image]:
    """Images with sides from letters: l, r or - for unknown, which cannot be decoded."""

    def fail() -> Decoded:
        raise ImageError("no pixels")

    words = {"l": "left", "r": "right", "-": ""}
    return [Image(f"{index}", f"{index}", fail, words[letter]) for index, letter in enumerate(lateralities)]


@pytest.mark.parametrize(
    ("available", "n", "expected"),
    [
        ("l" * 20 + "r" * 20, 10, {"left": 5, "right": 5}),
        ("l" * 20 + "r" * 3, 10, {"left": 7, "right": 3}),
        ("l" * 20 + "r" * 20, 7, {"left": 4, "right": 3}),
        ("lr", 10, {"left": 1, "right": 1}),
        ("-" * 9, 4, {"": 4}),
        ("lllrrr---", 6, {"left": 2, "right": 2, "": 2}),
    ],
)
def test_the_draw_is_balanced(available: str, n: int, expected: dict[str, int]) -> None:
    drawn = draw(named(available), n, seed=1)
    counts = {side: sum(image.laterality == side for image in drawn) for side in expected}
    assert counts == expected
    assert len({image.id for image in drawn}) == sum(expected.values())


def test_the_draw_depends_on_the_seed_alone() -> None:
    images = named("lr" * 50)
    ids = [[image.id for image in draw(images, 10, seed)] for seed in (1, 1, 2)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_sides_that_nothing_tells_are_seen_in_the_pixels(tmp_path: Path) -> None:
    for index in range(4):
        Pillow.fromarray(erf.draw_phantom(index, size=(256, 192)).pixels).save(tmp_path / f"image{index}.png")
    sides = sorted(image.laterality for image in draw(list_images(tmp_path), 4))
    assert sides == ["left", "left", "right", "right"]


def test_a_manifest_is_read(mammograms: Path) -> None:
    images = list_images(mammograms / "manifest.csv")
    assert [(image.laterality, image.view, image.patient_id) for image in images[:3]] == [
        ("left", "CC", "phantom-0000"),
        ("right", "CC", "phantom-0000"),
        ("left", "MLO", "phantom-0000"),
    ]
    assert {image.id for image in list_images(mammograms)} == {image.id for image in images}


def test_a_manifest_overrules_the_file_name(mammograms: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"path,laterality,site\n{mammograms / 'p0_L_CC.png'},Right,A\n")
    with pytest.raises(InputError, match="lies outside the manifest's folder; move it there, or ask for `allow_out"):
        list_images(tmp_path / "m.csv")
    (image,) = list_images(tmp_path / "m.csv", allow_outside=True)
    assert image.laterality == "right"
    assert image.columns == {"site": "A"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found columns none; expected a column 'path'"),
        ("file\na.png\n", "found columns file; expected a column 'path'"),
        ("path\n", "the manifest has no rows"),
        ("path,laterality\na.png,B\n", "line 2: laterality 'B' not understood; expected L, R or nothing"),
        ("path,laterality\na.png\n", "line 2: number of fields differs"),
        ("path\na.png,L\n", "line 2: number of fields differs"),
        ("path,laterality\n,L\n", "line 2: empty path"),
        ("path\na.png\na.png\n", "line 3: image 'a.png' is listed twice"),
        ("path\n0.png\n./0.png\n", "line 3: image './0.png' is listed twice, first in line 2"),
        ("path\n0.png\nx/../0.png\n", "line 3: image 'x/../0.png' is listed twice, first in line 2"),
        ("path\n0.png\nlink.png\n", "line 3: image 'link.png' is listed twice, first in line 2"),
        ("path,id\na.png,1\nb.png,1\n", "line 3: id '1' is that of line 2"),
        ("path,id\na.png,b.png\nb.png,\n", "line 3: id 'b.png' is that of line 2"),
        ("path,site,site\na.png,1,2\n", "found two columns 'site'"),
        ('path,site\n\n\na.png,"1\nb.png,2\n', "line 4: unexpected end of data"),
        ("path,site\na.png,1\0\n", "line 2: found a zero byte"),
        ("path,site\na.png," + "x" * 200_000, "line 2: field larger than field limit"),
        ("path\n..\\a.png\n", "line 2: '../a.png' lies outside"),
        ("path\nC:\\a.png\n", "line 2: 'C:/a.png' lies outside"),
        ("path\n../a.png\n", "line 2: '../a.png' lies outside"),
        ("path\nb/../../a.png\n", "line 2: 'b/../../a.png' lies outside"),
        ("path\n/etc/passwd\n", "line 2: '/etc/passwd' lies outside"),
    ],
)
def test_a_bad_manifest_gives_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    (tmp_path / "x").mkdir()
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("0.png")
    with pytest.raises(InputError, match=f"m.csv.*{message}"):
        list_images(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\na.png\n".encode("utf-16"), "cannot be read .*utf-8.*; expected a CSV in UTF-8"),
        ("path\nä.png\n".encode("latin-1"), "cannot be read .*utf-8.*; expected a CSV in UTF-8"),
        (b"", "found columns none"),
    ],
)
def test_a_manifest_in_another_encoding(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"m.csv.*{message}"):
        list_images(tmp_path / "m.csv")


def test_manifests_as_spreadsheets_write_them(tmp_path: Path) -> None:
    text = '\ufeffpath, laterality ,site,,\r\n\r\na.PNG,Left,"one\r\ntwo",,\r\nsub\\b.png,r,B,,\r\n'
    (tmp_path / "M.CSV").write_bytes(text.encode())
    first, second = list_images(tmp_path / "M.CSV")
    assert (first.path, first.laterality, first.columns) == ("a.PNG", "left", {"site": "one\r\ntwo"})
    assert (second.path, second.file) == ("sub/b.png", tmp_path / "sub" / "b.png")


def test_manifests_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe.csv: found no file, expected a folder of images"):
        list_images(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(InputError, match=r"large.csv: table cannot be read \(found 5369 MB, at most 268 MB are read"):
        list_images(tmp_path / "large.csv")


def test_a_folder_lists_a_file_once_whatever_its_names(tmp_path: Path) -> None:
    Pillow.fromarray(RAMP).save(tmp_path / "b.png")
    (tmp_path / "a.png").symlink_to("b.png")
    os.link(tmp_path / "b.png", tmp_path / "c.PNG")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    assert [image.id for image in list_images(tmp_path)] == ["b.png"]


def test_names_that_are_no_text_are_spelled_out(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"two\nlines.png", b"\x1b[31mred.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Pillow.fromarray(RAMP).save(file, "png")
    images = list_images(tmp_path)
    assert [image.id for image in images] == [r"\x1b[31mred.png", r"caf\udce9.png", r"two\nlines.png"]
    for image in images:
        np.testing.assert_array_equal(image.decode().pixels[0], RAMP)


def test_columns_of_subsets_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path,laterality,site\na.png,L,"A\tB"\n')
    images = erf.load_images(tmp_path / "m.csv")
    images.check_columns(["laterality", "view"])
    with pytest.raises(InputError, match="no image has a column 'lateralitty'; expected one such as laterality"):
        images.check_columns(["lateralitty"])
    with pytest.raises(InputError, match=r"column 'site' has the value 'A\\tB'; expected printable text"):
        images.check_columns(["site"])


def test_phantoms_beyond_count() -> None:
    with pytest.raises(InputError, match="30000000 phantoms asked for; expected at most 100000"):
        erf.load_images(n=30_000_000)


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no images"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="nowhere: found nothing, expected a folder"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match="found a file that is no CSV"):
        list_images(tmp_path / "a.txt")


def image_of(pixels: np.ndarray, laterality: str = "", view: str = "") -> tuple[Image, Decoded]:
    decoded = Decoded(pixels, "")
    return Image("a", "a.png", lambda: decoded, laterality, view), decoded


def place(pixels: np.ndarray, size: tuple[int, int], laterality: str = "", view: str = "") -> np.ndarray:
    return Framing(size, normalisation="none").apply(*image_of(pixels, laterality, view)).pixels


@pytest.mark.parametrize(
    ("laterality", "view", "rows", "columns"),
    [
        ("left", "CC", slice(3, 7), slice(0, 3)),
        ("right", "CC", slice(3, 7), slice(5, 8)),
        ("left", "MLO", slice(0, 4), slice(0, 3)),
        ("right", "MLO", slice(0, 4), slice(5, 8)),
        ("", "", slice(3, 7), slice(2, 5)),
    ],
)
def test_padding_keeps_the_chest_wall_at_its_edge(laterality: str, view: str, rows: slice, columns: slice) -> None:
    pixels = np.arange(10, 22).reshape(1, 4, 3)
    framed = place(pixels, (10, 8), laterality, view)
    np.testing.assert_array_equal(framed[:, rows, columns], pixels)
    framed[:, rows, columns] = 10
    assert (framed == 10).all()  # padded with the darkest value


@pytest.mark.parametrize(("laterality", "columns"), [("left", slice(0, 4)), ("right", slice(6, 10))])
def test_cropping_keeps_the_chest_wall(laterality: str, columns: slice) -> None:
    pixels = np.random.default_rng(0).permutation(120).reshape(1, 12, 10)  # no side to be seen in it
    np.testing.assert_array_equal(place(pixels, (6, 4), laterality, "MLO"), pixels[:, :6, columns])
    np.testing.assert_array_equal(place(pixels, (6, 4), laterality, "CC"), pixels[:, 3:9, columns])


def test_an_image_is_never_mirrored_and_disagreement_is_told() -> None:
    phantom = erf.draw_phantom(0, size=(256, 192))
    image, decoded = image_of(phantom.pixels[None], laterality="right")
    sample = Framing((256, 224), normalisation="none").apply(image, decoded)
    np.testing.assert_array_equal(sample.pixels[:, :, :192], phantom.pixels[None])
    assert sample.notes == ("labelled right, but the tissue lies at the left edge: mirrored or mislabelled",)


def test_standardisation_takes_the_whole_frame() -> None:
    image, decoded = image_of(np.random.default_rng(0).integers(0, 60000, (1, 300, 200), dtype=np.uint16))
    pixels = Framing((400, 300)).apply(image, decoded).pixels
    assert abs(pixels.mean(dtype=np.float64)) < 1e-5
    assert abs(pixels.std(dtype=np.float64) - 1) < 1e-5
    again = Framing((400, 300)).apply(image, decoded).pixels
    np.testing.assert_array_equal(pixels, again)  # normalising in place has not touched the decoded pixels


def test_other_normalisations() -> None:
    image, decoded = image_of(np.array([[[0, 65535]]], np.uint16))
    assert Framing((1, 2), normalisation="unit").apply(image, decoded).pixels.tolist() == [[[0.0, 1.0]]]
    assert Framing((1, 2), normalisation="none").apply(image, decoded).pixels.tolist() == [[[0.0, 65535.0]]]
    with pytest.raises(
        InputError, match="normalisation 'zscore' not known; expected one of standardise, imagenet, unit"
    ):
        Framing((1, 2), normalisation="zscore")
    with pytest.raises(ImageError, match="float64 pixels have no full scale"):
        Framing((1, 2), normalisation="unit").apply(*image_of(np.array([[[0.0, 1.0]]])))


def test_channels() -> None:
    assert Framing((5, 4), channels=3, normalisation="none").apply(*image_of(np.eye(5, 4)[None])).pixels.shape == (
        3,
        5,
        4,
    )
    with pytest.raises(ImageError, match=r"a.png: found 3 channels, expected 1; convert the image to greyscale"):
        Framing((5, 4)).apply(*image_of(np.zeros((3, 5, 4))))


def test_resampling_only_on_request() -> None:
    pixels = np.add.outer(np.arange(40.0), np.arange(20.0))[None]
    framed = Framing((20, 20), normalisation="none", fit="letterbox").apply(*image_of(pixels, "left"))
    # Half the size: each pixel is about the mean of the 2x2 it covers (bilinear with support 2, exact on a ramp).
    inner = framed.pixels[0, 2:18, 2:8]
    expected = np.add.outer(np.arange(20.0), np.arange(10.0))[2:18, 2:8] * 2 + 1
    np.testing.assert_allclose(inner, expected, rtol=1e-5)


def test_samples_arrive_in_order_whatever_the_workers() -> None:
    arrays = [np.full((1, 4, 4), index, float) + np.eye(4) for index in range(9)]
    images = erf.from_arrays(arrays)
    for workers in (0, 1, 4):
        got = [item.pixels.min() for item in ahead(images.sample, images.images, workers) if isinstance(item, Sample)]
        assert got == list(range(9))


def test_a_stream_reports_failures_and_goes_on() -> None:
    arrays = [np.eye(4)[None], np.full((1, 4, 4), np.nan), np.eye(4)[None]]
    images = erf.from_arrays(arrays)
    kinds = [type(item) for item in ahead(images.sample, images.images, 2)]
    assert kinds == [Sample, Failure, Sample]


def test_load_images_refuses_nothing_at_all() -> None:
    with pytest.raises(InputError, match="n=0 images"):
        erf.load_images(n=0)
    with pytest.raises(InputError, match="arrays have shapes"):
        erf.from_arrays([np.zeros((1, 2, 2)), np.zeros((1, 3, 2))])
    with pytest.raises(InputError, match="found 1 lateralities for 2 arrays"):
        erf.from_arrays([np.zeros((1, 2, 2))] * 2, ["left"])
    assert isinstance(erf.load_images(n=3, size=(64, 48)), ImageSet)
