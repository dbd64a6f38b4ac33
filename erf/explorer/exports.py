"""A field as a file: computed again as a run does, with its self-check and full provenance, then saved or drawn."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from erf.engine import compute
from erf.explorer.field import Field
from erf.explorer.subject import Subject
from erf.plotting import plot
from erf.storage import save

FORMATS = {"png": "image/png", "svg": "image/svg+xml", "h5": "application/x-hdf5"}
"""Media type of each format."""


def export_field(subject: Subject, found: Field, kind: str) -> bytes:
    """Return the ERF of a unit in one image as a file.

    Args:
        subject: the network and the images.
        found: the field of the unit.
        kind: key of `FORMATS`.
    """
    place = found.place
    images = replace(subject.images, images=(subject.pictures.image(place.image),))
    result = compute(
        subject.network,
        images,
        layer=place.layer,
        unit=found.unit,
        channel=place.channel,
        definitions=[place.definition],
        device=str(subject.device),
        progress=False,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"field.{kind}"
        if kind == "h5":
            save(result, path)
        else:
            plot(result, path, subsets=["all"], definition=place.definition)
        return path.read_bytes()
