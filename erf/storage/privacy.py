"""Anonymisation: identifying content of a file, and its replacement by pseudonyms.

Names become pseudonyms, keyed hashes (BLAKE2) with a salt: whoever has the salt, or guesses it, can try names; without
it nobody can. Files with one salt belong together: the same image and the same patient have the same pseudonym.
"""

import hashlib
import re
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, overload

import numpy as np

from erf.errors import ImageError
from erf.images import PHANTOM, Decoded, Image, ImageSet
from erf.results import ERF, SHIPPED, ImageRecord, Origin, Overview, Provenance
from erf.storage.series import Series

_OWN_COLUMNS = ("unit", "input")
"""Columns that a run adds: positions in the layer's map, names of the network's inputs."""

_TELLING_NOTHING = ("view", "laterality", "input")
"""Columns whose subsets do not identify a patient."""

_PSEUDONYM = re.compile(r"(image|patient|content|source|value)-[0-9a-f]{16}(:[^/\\]*)?")
_MADE = re.compile(r"(phantom|array)\S*")
"""Names of synthetic images."""

_Origin = TypeVar("_Origin", bound=Origin)


@dataclass(frozen=True)
class Anonymity:
    """Rules of anonymisation."""

    salt: str
    keep: tuple[str, ...] = ()
    """Columns of the manifest that are kept; all others go."""
    thumbnails: bool = False
    """Whether thumbnails of the images are kept."""

    @cached_property
    def _key(self) -> bytes:
        return hashlib.sha256(self.salt.encode("utf-8", "backslashreplace")).digest()

    def pseudonym(self, kind: str, name: str) -> str:
        """Return the pseudonym of a name; '' stays ''."""
        if not name:
            return ""
        name = name.encode("utf-8", "backslashreplace").decode()
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._key, person=kind.encode())
        return f"{kind}-{digest.hexdigest()}"

    def images(self, images: ImageSet) -> ImageSet:
        """The images of a run under pseudonyms, so that nothing of the run knows their names."""
        return replace(
            images, images=tuple(map(self._image, images.images)), thumbnails=images.thumbnails and self.thumbnails
        )

    def _image(self, image: Image) -> Image:
        name = self.pseudonym("image", image.id)

        def decode() -> Decoded:
            try:
                found = image.decode()
            except ImageError as error:
                known = (image.path, image.id, image.patient_id, str(image.file or ""))
                raise ImageError(_reworded(str(error), known, name)) from error
            return replace(found, sha256=self.pseudonym("content", found.sha256))

        return replace(
            image,
            id=name,
            path=name,
            decode=decode,
            patient_id=self.pseudonym("patient", image.patient_id),
            columns=self._columns(image.columns),
            parts=tuple(map(self._image, image.parts)),
        )

    def _columns(self, columns: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in columns.items() if name in (*self.keep, *_OWN_COLUMNS)}

    def record(self, record: ImageRecord) -> ImageRecord:
        """The record of an image under its pseudonym."""
        part = f":{record.columns['input']}" if "input" in record.columns else ""  # of a case, which image
        name = self.pseudonym("image", record.id.removesuffix(part))
        return replace(
            record,
            id=f"{name}{part}",
            path=name,
            patient_id=self.pseudonym("patient", record.patient_id),
            sha256=self.pseudonym("content", record.sha256),
            message=_reworded(record.message, (record.path, record.id, record.patient_id), name),
            columns=self._columns(record.columns),
            subsets=tuple(map(self.subset, record.subsets)),
        )

    def subset(self, name: str) -> str:
        """The name of a subset, without the values of columns that go."""
        column, equals, value = name.partition("=")
        if not equals or column in (*_TELLING_NOTHING, *self.keep):
            return name
        return f"{column}={self.pseudonym('patient' if column == 'patient_id' else 'value', value)}"

    def origin(self, origin: _Origin) -> _Origin:
        """Anonymise an origin: names in place of paths, and the command's options without their values."""
        return replace(
            origin,
            model=_last(origin.model),
            model_options=_without_paths(origin.model_options),
            weights=origin.weights if origin.weights.startswith(SHIPPED) else _last(origin.weights),
            source=origin.source if origin.source == PHANTOM else self.pseudonym("source", origin.source),
            command=_options(origin.command),
            identity="",  # it is made of names
        )

    def provenance(self, origin: Provenance) -> Provenance:
        """Anonymise the provenance of a run."""
        imported = {name: origin.imported[name] for name in ("centre",) if name in origin.imported}
        options = _without_paths(origin.method_options)
        return replace(self.origin(origin), method_options=options, imported=imported)

    def overview(self, overview: Overview | None) -> Overview | None:
        """Return the overview of images, without thumbnails unless they are kept."""
        if overview is None or self.thumbnails:
            return overview
        return replace(overview, thumbnail=np.zeros_like(overview.thumbnail))

    def erf(self, erf: ERF) -> ERF:
        """An ERF whose images have pseudonyms."""
        return replace(
            erf,
            provenance=self.provenance(erf.provenance),
            subsets={self.subset(name): definitions for name, definitions in erf.subsets.items()},
            images=tuple(map(self.record, erf.images)),
            read_overview=lambda: self.overview(erf.overview()),
        )

    def series(self, series: Series) -> Series:
        """A series whose images have pseudonyms."""
        moments = (replace(moment, provenance=self.provenance(moment.provenance)) for moment in series.moments)
        images = tuple(map(self.record, series.images))
        return Series(images, self.overview(series.overview), tuple(moments))


@overload
def anonymise(subject: ERF, *, salt: str | None = None, keep: Sequence[str] = (), thumbnails: bool = False) -> ERF: ...
@overload
def anonymise(
    subject: Series, *, salt: str | None = None, keep: Sequence[str] = (), thumbnails: bool = False
) -> Series: ...
@overload
def anonymise(
    subject: ImageSet, *, salt: str | None = None, keep: Sequence[str] = (), thumbnails: bool = False
) -> ImageSet: ...
def anonymise(
    subject: ERF | Series | ImageSet, *, salt: str | None = None, keep: Sequence[str] = (), thumbnails: bool = False
) -> ERF | Series | ImageSet:
    """Replace names by pseudonyms in an ERF or a series, or in images before they are used.

    Ids, paths, patients and checksums of contents are hashed with the salt; paths become names.

    Args:
        subject: an ERF, a series or a set of images.
        salt: key of the hashes; by default a random one that is discarded.
        keep: columns of the manifest to keep; all others are removed.
        thumbnails: keep thumbnails of the images.

    Returns:
        An anonymised copy of the subject.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu")
        >>> erf.anonymise(result, salt="secret").images[0].patient_id.partition("-")[0]
        'patient'
    """
    anonymity = Anonymity(salt if salt is not None else drawn_salt(), tuple(keep), thumbnails)
    if isinstance(subject, ERF):
        return anonymity.erf(subject)
    return anonymity.series(subject) if isinstance(subject, Series) else anonymity.images(subject)


def drawn_salt() -> str:
    """A salt that nobody can guess."""
    return secrets.token_hex(16)


def _reworded(message: str, known: Iterable[str], name: str) -> str:
    """A message that calls an image by another name; up to the last path, whosever that may be, words are cut."""
    for word in sorted(filter(None, known), key=len, reverse=True):
        message = message.replace(word, name)
        message = message.replace(_last(word), name)
    cut = [found.end() for found in re.finditer(r"\S*[/\\]\S*", message)]
    return f"{name}: {message[cut[-1] :].lstrip(' :')}" if cut else message


def _last(path: str) -> str:
    """The name at the end of a path of any system."""
    return PureWindowsPath(PurePosixPath(path).name).name if re.search(r"[/\\]", path) else path


def _without_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _last(value) if isinstance(value, str) else value for name, value in options.items()}


def _options(command: str) -> str:
    """A command's verb and the names of its options."""
    words = _words(command)
    return " ".join([*words[:2], *(_option(word) for word in words[2:] if re.match(r"-[A-Za-z-]", word))])


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _option(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else word[:2]


@dataclass(frozen=True)
class Identifier:
    """One kind of thing in a file that tells of whom images are."""

    what: str
    count: int
    example: str


def identifiers(
    images: Sequence[ImageRecord], origins: Sequence[Provenance], overview: Overview | None
) -> list[Identifier]:
    """List the content that identifies patients; neither synthetic images nor pseudonyms count."""
    taken = [row for row, image in enumerate(images) if not _MADE.fullmatch(image.id)]
    records = [images[row] for row in taken]
    fields: dict[str, Callable[[ImageRecord], Iterable[str]]] = {
        "names of images": lambda image: [image.id],
        "paths of images": lambda image: [image.path],
        "patients": lambda image: [image.patient_id],
        "sums over contents, for who has the image": lambda image: [image.sha256],
        "columns of the manifest": lambda image: [
            f"{k}={v}" for k, v in image.columns.items() if k not in _OWN_COLUMNS
        ],
        "subsets by a column": lambda image: [name for name in image.subsets if _tells(name)],
        "messages with paths": lambda image: [image.message] if re.search(r"[/\\]", image.message) else [],
    }
    found = [_identifier(what, (it for image in records for it in values(image))) for what, values in fields.items()]
    if overview is not None:
        found.append(
            _identifier(
                "thumbnails", (images[row].id for row in taken if overview.thumbnail[row].any()), everything=True
            )
        )
    for what, told in _of_run(origins).items():
        found.append(_identifier(what, told))
    return [one for one in found if one.count]


def _tells(subset: str) -> bool:
    column, equals, value = subset.partition("=")
    return bool(equals) and column not in _TELLING_NOTHING and not _PSEUDONYM.fullmatch(value)


def _of_run(origins: Sequence[Provenance]) -> dict[str, Iterator[str]]:
    return {
        "source of the images": (it.source for it in origins if it.source != PHANTOM),
        "paths of the network": (
            path for it in origins for path in (it.model, it.weights) if _last(path) != path and SHIPPED not in path
        ),
        "command": (it.command for it in origins if it.command != _options(it.command)),
    }


def _identifier(what: str, told: Iterable[str], *, everything: bool = False) -> Identifier:
    shown = [text for text in told if text and (everything or not _PSEUDONYM.fullmatch(text))]
    return Identifier(what, len(set(shown)), shown[0] if shown else "")
