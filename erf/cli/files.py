"""What the verbs that read ERF files share: their names, and the table of their measures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from erf.cli.console import parse_list
from erf.comparison import ComparisonTable, tabulate
from erf.intervals import Drawing
from erf.measures import pick_measures
from erf.result import ERF
from erf.storage import load


def load_named(files: Sequence[Path], labels: str) -> tuple[list[ERF], list[str]]:
    """ERFs, and what each is called: its label, or its model, with the file's name where several share the model."""
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
    drawing: Drawing,
    by_image: bool,
    allow_different: bool,
) -> ComparisonTable:
    """The table of measures of some files, from the options of a command."""
    erfs, names = load_named(files, labels)
    return tabulate(
        erfs,
        *pick_measures(parse_list(measures)),
        labels=names,
        subset=subset,
        definition=definition,
        drawing=drawing,
        by_patient=not by_image,
        allow_different=allow_different,
    )
