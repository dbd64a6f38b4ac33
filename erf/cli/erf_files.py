"""Functions shared by the commands that read ERF files: labels, and the table of measures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from erf.cli.console import parse_list
from erf.comparison import ComparisonTable, compare
from erf.results import ERF
from erf.storage import load
from erf.uncertainty import Resampling


def load_named(files: Sequence[Path], labels: str) -> tuple[list[ERF], list[str]]:
    """Load ERFs and their labels: as given, or the model's name, with the file's name if several share the model."""
    erfs = [load(file) for file in files]
    titles = [erf.provenance.title for erf in erfs]
    counts = Counter(titles)
    names = [
        title if counts[title] == 1 else f"{title} ({file.stem})" for title, file in zip(titles, files, strict=True)
    ]
    return erfs, list(parse_list(labels)) or names


def tabulate_files(
    files: Sequence[Path],
    measures: str,
    labels: str,
    subset: str,
    definition: str,
    resampling: Resampling,
    by_image: bool,
    allow_different: bool,
) -> ComparisonTable:
    """Build the table of measures of some files, from the options of a command.

    Args:
        files: ERF files; differences are to the first.
        measures: names separated by commas, `all`, or '' for the default ones.
        labels: names of the files separated by commas, or '' for the models' names.
        subset: subset of the images, such as `left`.
        definition: definition of the map, such as `abs`.
        resampling: bootstrap settings.
        by_image: whether images count as independent even if patients are known.
        allow_different: whether files measured with different settings may be compared.
    """
    erfs, names = load_named(files, labels)
    return compare(
        *erfs,
        measures=parse_list(measures),
        labels=names,
        subset=subset,
        definition=definition,
        resampling=resampling,
        by_patient=not by_image,
        allow_different=allow_different,
    )
