"""The ERF of one unit with the weights of several epochs, on the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from erf.building import Network
from erf.building.network import Warn
from erf.building.weights import file_digest
from erf.engine import compute_layers
from erf.engine.settings import Settings
from erf.errors import FormatError, InputError
from erf.images import ImageSet
from erf.results import Origin
from erf.storage import checkpoint
from erf.storage.checkpoint import Checkpoint
from erf.storage.series import Moment, Series, load_series, save_series
from erf.training.folder import read_header

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, order=True)
class Snapshot:
    """A weights file of a training."""

    epoch: int
    stage: str
    file: Path
    sha256: str


def find_snapshots(files: Sequence[str | Path]) -> list[Snapshot]:
    """Return the snapshots of a training in the order of its epochs.

    Args:
        files: weights files. Epoch and stage are read from their headers; if one has none, or an epoch occurs twice,
            they are numbered as given.

    Returns:
        One snapshot for each file.
    """
    paths = [Path(file) for file in files]
    found = [(*_header(path), path) for path in paths]
    if any(epoch < 0 for epoch, _, _ in found) or len({epoch for epoch, _, _ in found}) < len(found):
        found = [(number, "", path) for number, path in enumerate(paths)]
    return [Snapshot(*one, file_digest(one[2])) for one in sorted(found)]


def _header(file: Path) -> tuple[int, str]:
    """Read (epoch, stage) from the header of a weights file; -1 for none."""
    about = read_header(file)
    epoch, stage = about.get("epoch"), about.get("stage")
    return epoch if isinstance(epoch, int) else -1, stage if isinstance(stage, str) else ""


def compute_series(
    network: Network,
    images: ImageSet,
    snapshots: Sequence[Snapshot],
    layer: str = "",
    settings: Settings | None = None,
    *,
    origin: Callable[[Snapshot], Origin] | None = None,
    folder: Path | None = None,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    warn: Warn | None = None,
) -> Series:
    """Compute the ERF of one unit with the weights of each snapshot, on the same images.

    Example:
        >>> import torch, erf
        >>> from safetensors.torch import save_file
        >>> network = erf.build_network(torch.nn.Conv2d(1, 2, 5), size=(64, 48))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> for epoch in range(2):
        ...     save_file(torch.nn.Conv2d(1, 2, 5).state_dict(), f"{epoch}.safetensors")
        >>> snapshots = erf.find_snapshots(["0.safetensors", "1.safetensors"])
        >>> [moment.epoch for moment in erf.compute_series(network, images, snapshots, "output").moments]
        [0, 1]

    Args:
        network: the network; the weights of the last snapshot remain in it.
        images: images, the same for all snapshots.
        snapshots: the weights, as `find_snapshots` lists them.
        layer: name of the layer; '' for the default layer.
        settings: as for `compute`, with one unit.
        origin: facts about the run with a snapshot; default: those of the network.
        folder: where results and progress are kept, so that a later call with the same snapshots goes on there.
        note: called with one line before each snapshot.
        progress: called as (stage, done, total).
        stop: asked between batches; the run stops once it returns True.
        warn: called with one line where the self-check falls back to a slower way of computing.

    Returns:
        The series, in the order of the snapshots.

    Raises:
        InputError: there is no snapshot, or there are several units.
        WeightsError: weights cannot be read or do not fit.
        InterruptedRunError: `stop` returned True.
    """
    if not snapshots:
        raise InputError("found no snapshots; expected one or more")
    (layer,) = (layer,) if layer else network.layers()
    settings = settings or Settings(arguments=network.arguments, seed=network.seed)
    run = _Run(network, images, layer, settings, origin or _origin(network), progress, stop, warn)
    with TemporaryDirectory() as own:
        series = None
        for place, snapshot in enumerate(snapshots):
            if note is not None:
                note(f"{place + 1}/{len(snapshots)}: {snapshot.file}")
            found = run.series(snapshot, folder or Path(own))
            series = found if series is None else series.joined(found)
    assert series is not None
    return series


def _origin(network: Network) -> Callable[[Snapshot], Origin]:
    return lambda snapshot: network.origin(weights=str(snapshot.file), weights_sha256=snapshot.sha256)


@dataclass(frozen=True)
class _Run:
    """Arguments of `compute_series` that are the same for all snapshots."""

    network: Network
    images: ImageSet
    layer: str
    settings: Settings
    origin: Callable[[Snapshot], Origin]
    progress: Progress | None
    stop: Callable[[], bool]
    warn: Warn | None

    def series(self, snapshot: Snapshot, folder: Path) -> Series:
        """Return the series of a single snapshot: that in the folder, or a new one, which is kept there."""
        part = folder / f"{snapshot.sha256[:16]}.h5"
        found = kept_series(part) or self._computed(snapshot, part)
        return replace(found, moments=(replace(found.moments[0], epoch=snapshot.epoch, stage=snapshot.stage),))

    def _computed(self, snapshot: Snapshot, part: Path) -> Series:
        run = compute_layers if self.warn is None else partial(compute_layers, warn=self.warn)
        self.network.with_weights(snapshot.file)
        with Checkpoint(part.with_suffix(""), resume=True, every=checkpoint.EVERY) as saved:
            found = run(
                self.network.model, self.images, [self.layer], self.settings, origin=self.origin(snapshot),
                progress=self.progress, checkpoint=saved, stop=self.stop,
            )  # fmt: skip
            if len(found) > 1:
                raise InputError(f"found {len(found)} units over training; expected one", remedy="choose one `unit`")
            series = Series.of(found[0], Moment.of(found[0], 0))
            save_series(series, part, overwrite=True)
        return series


def kept_series(path: Path) -> Series | None:
    """Load the series of an earlier run; None if there is no readable file."""
    try:
        return load_series(path) if path.exists() else None
    except FormatError:
        return None
