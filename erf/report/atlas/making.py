"""Making of an atlas: each network is computed once and kept, and one that fails is a row with its reason."""

import html
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from erf.definitions import DEFINITIONS
from erf.errors import InputError, InterruptedRunError, OutputExistsError
from erf.images import PHANTOM
from erf.importing import import_map
from erf.measures import Measure, pick_measures
from erf.plotting.coloring import Coloring
from erf.report.atlas.entry import Entry, entry_of, labelled
from erf.report.atlas.page import MARK, write_page
from erf.report.atlas.sources import Source, expand
from erf.report.atlas.table import COLUMNS, write_table
from erf.storage import load
from erf.storage.files import unwritable
from erf.storage.outputs import check_folder
from erf.text import as_names, file_name, one_line

MEASURES = ("r50", "r90", "square50", "anisotropy", "variability")

PAGE, TABLE, FIELDS = "index.html", "atlas.csv", "fields"
"""Names of the page, the table, and the folder of ERF files."""

_LONGEST_REASON = 300

_HEIGHT = 640
"""Height in pixels of the page in a notebook."""


@dataclass(frozen=True, repr=False)
class Atlas:
    """The networks of an atlas and its files; shows its page in a notebook."""

    entries: tuple[Entry, ...]
    page: Path
    table: Path

    @property
    def failures(self) -> tuple[Entry, ...]:
        """Networks without a field."""
        return tuple(each for each in self.entries if each.reason)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} without a field" if self.failures else ""
        return f"atlas of {len(self.entries)} networks{failed}: {self.page}"

    def _repr_html_(self) -> str:
        page = html.escape(self.page.read_text(encoding="utf-8"))
        return f'<iframe title="atlas" srcdoc="{page}" style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'


@dataclass(frozen=True)
class Computation:
    """How the networks of an atlas are computed; what differs gives other files."""

    images: str = PHANTOM
    n: int = 20
    size: tuple[int, int] | None = None
    weights: str | None = None
    normalisation: str = ""
    seed: int = 0
    image_seed: int = 0
    definition: str = "abs"
    device: str = "auto"

    def file(self, folder: Path, name: str) -> Path:
        """Return the file of a network, whose name has a hash of these settings and of the weights file."""
        settings: dict[str, Any] = asdict(self) | {"device": "", "model": name}
        weights = Path(self.weights or "")
        if self.weights and weights.is_file():
            settings["changed"] = weights.stat().st_mtime_ns
        digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return folder / f"{file_name(name)[:150]}-{digest}.h5"

    def run(self, name: str, file: Path, overwrite: bool) -> None:
        """Compute the field of a network into a file, which records what the warnings say."""
        from erf.engine import compute  # PyTorch, which an atlas of files does not need

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compute(
                name, self.images, n=self.n, size=self.size, weights=self.weights, normalisation=self.normalisation,
                seed=self.seed, image_seed=self.image_seed, definitions=(self.definition,), device=self.device,
                output=file, resume=True, overwrite=overwrite, progress=False,
            )  # fmt: skip


def atlas(
    networks: str | Path | Sequence[str | Path],
    output: str | Path = "atlas",
    *,
    images: str | Path = PHANTOM,
    n: int = 20,
    size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    normalisation: str = "",
    seed: int = 0,
    image_seed: int = 0,
    definition: str = "",
    measures: Sequence[str] = MEASURES,
    device: str = "auto",
    scale: str = "log",
    colors: str = "",
    joint_scale: bool = False,
    title: str = "Atlas of effective receptive fields",
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Atlas:
    """Compute many networks and show them in one page and one table.

    A network that was computed before with the same settings is kept, so that the same call resumes; one that fails
    is a row with its reason.

    Args:
        networks: Names of networks, patterns of registered ones (`unet*`) and of timm's (`timm:resnet*`), ERF files,
            maps of other programs (.npy, .npz), and lists (.txt) with one of these per line.
        output: Folder of the page (`index.html`), the table (`atlas.csv`) and the ERF files (`fields`).
        images: Folder, manifest, or 'phantom'.
        n: Number of images for each network.
        size: (height, width) of the input in pixels; None for each network's own.
        weights: As for `erf.compute`, for all networks: 'none' for untrained ones, None for shipped weights if any.
        normalisation: As for `erf.compute`.
        seed: Seed of untrained weights.
        image_seed: Seed of the draw of images and of phantoms.
        definition: Definition of the maps; '' for abs, and for what a file shows by default.
        measures: Names of measures, the columns.
        device: 'cpu', 'cuda', 'mps' or 'auto'.
        scale: Scale of the colours, as for `erf.plot`.
        colors: Colour map, as for `erf.plot`.
        joint_scale: Whether all maps have one scale, as for `erf.plot`.
        title: Title of the page.
        overwrite: Whether to compute kept networks again, and to replace a page that is no atlas.
        progress: Called with a line for each network.

    Returns:
        The entries, in the order given, and the paths of page and table.

    Raises:
        InputError: A pattern matches nothing, or a measure does not exist.
        OutputError: The folder cannot be written, or holds another page.
        InterruptedRunError: The run was interrupted; the same call goes on.

    Example:
        >>> import erf
        >>> made = erf.atlas(["resnet18", "no-such-network"], "atlas", n=2, size=(64, 64), device="cpu")
        >>> made.page.name, [bool(entry.reason) for entry in made.entries]
        ('index.html', [False, True])
    """
    chosen, _ = pick_measures(as_names(measures))
    if definition and (definition not in DEFINITIONS or definition == "signed"):
        known = ", ".join(name for name in DEFINITIONS if name != "signed")
        raise InputError(f"definition '{definition}' cannot be measured; expected one of {known}")
    coloring = Coloring(scale, colors, joint=joint_scale)
    sources, folder = expand([networks] if isinstance(networks, str | Path) else networks), Path(output)
    page, table = folder / PAGE, folder / TABLE
    _prepare(folder, page, table, overwrite)
    computation = Computation(
        str(images), n, size, None if weights is None else str(weights), normalisation, seed, image_seed,
        definition or "abs", device,
    )  # fmt: skip
    entries = []
    for number, source in enumerate(sources, start=1):
        begin = time.monotonic()
        entries.append(_entry(source, computation, folder / FIELDS, chosen, definition, overwrite))
        if progress is not None:
            progress(f"{number}/{len(sources)} {_line(entries[-1], time.monotonic() - begin)}")
    made = Atlas(tuple(labelled(entries)), page, table)
    write_table(made.entries, chosen, table)
    write_page(made.entries, chosen, coloring, page, title)
    return made


def _prepare(folder: Path, page: Path, table: Path, overwrite: bool) -> None:
    check_folder(folder)
    for path, mark in ((page, MARK), (table, ",".join(COLUMNS))):
        if path.exists() and not overwrite and mark not in _beginning(path):
            raise OutputExistsError(f"{path} exists and is no atlas")
    try:
        (folder / FIELDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(2000)


def _entry(
    source: Source,
    computation: Computation,
    folder: Path,
    measures: Sequence[Measure],
    definition: str,
    overwrite: bool,
) -> Entry:
    """Return the row of a network; whatever goes wrong with it is its reason."""
    try:
        if source.kind == "map":
            erf = import_map(source.name, array=source.array, title=source.label, definition=definition or "abs")
            return entry_of(erf, source.label, measures, definition)
        if source.kind == "file":
            erf = load(source.name)
            return entry_of(erf, erf.provenance.title, measures, definition, source.name)
        file = computation.file(folder, source.name)
        if overwrite or not file.exists():
            computation.run(source.name, file, overwrite)
        return entry_of(load(file), source.name, measures, definition, str(file))
    except InterruptedRunError:
        raise
    except (Exception, SystemExit) as error:  # code of any network may raise anything
        words = one_line(str(error)) or type(error).__name__
        return Entry(source.label, reason=words[:_LONGEST_REASON])


def _line(entry: Entry, seconds: float) -> str:
    first: Mapping[str, Any] = entry.estimates
    words = entry.reason or ", ".join(f"{name} {first[name]}" for name in list(first)[:1])
    return f"{entry.label}: {words}, {seconds:.1f} s"
