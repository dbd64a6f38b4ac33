"""The ERF of a network while it is trained."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from erf.building import Network
from erf.engine import compute
from erf.images import ImageSet
from erf.results import Origin
from erf.storage.series import Moment, Series, load_series, save_series

Progress = Callable[[str, int, int], None]


class TrainingMonitor:
    """Series of ERFs of a network in training, on the same images, in a file that grows with every epoch.

    Pass it to a `Training` as its `after_epoch`, or call it after each epoch of another training.

    Args:
        network: the network that is trained.
        images: images on which every ERF is computed.
        path: file of the series. A file that exists is continued, and replaced at epoch 0.
        layer: name of the layer; '' for the default layer.
        every: number of epochs between two ERFs; the first is that before training.
        origin: facts about the run; default: those of the network.
        progress: called as (stage, done, total).

    Example:
        >>> import torch, erf
        >>> from pathlib import Path
        >>> network = erf.build_network(torch.nn.Conv2d(1, 2, 5), size=(64, 48))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> monitor = erf.TrainingMonitor(network, images, Path("series.h5"), layer="output")
        >>> for epoch in range(2):
        ...     monitor(network.model, {"epoch": epoch, "stage": "image"})
        >>> [moment.epoch for moment in monitor.series().moments]
        [0, 1]
    """

    def __init__(
        self,
        network: Network,
        images: ImageSet,
        path: Path,
        *,
        layer: str = "",
        every: int = 1,
        origin: Origin | None = None,
        progress: Progress | None = None,
    ) -> None:
        (self.layer,) = (layer,) if layer else network.layers()
        self.path, self.every, self.progress = path, every, progress
        self._network, self._images = network, images
        self._origin = replace(origin or network.origin(), weights_sha256="")  # weights differ from epoch to epoch

    def __call__(self, model: nn.Module, row: Mapping[str, Any]) -> None:
        """Compute the ERF of the network's current state, if it is due, and add it to the series in the file.

        Args:
            model: the network in eval mode; it is left as it is.
            row: row of epochs.json; needs `epoch` and `stage`, and scores are those named `validation_…`.
        """
        if row["epoch"] % self.every:
            return
        weights = f"{row['epoch']:03d}-{row['stage']}.safetensors" if row["epoch"] else ""
        # A copy: the engine moves the network to its own device, which need not be that of the training.
        found = compute(
            copy.deepcopy(model),
            self._images,
            layer=self.layer,
            seed=self._network.seed,
            arguments=self._network.arguments,
            origin=replace(self._origin, weights=weights),
            progress=self.progress,
        )
        scores = {name: value for name, value in row.items() if name.startswith("validation_")}
        moment = Moment.of(found, row["epoch"], row["stage"], scores)
        is_first = row["epoch"] == 0 or not self.path.exists()
        series = Series.of(found, moment) if is_first else self.series().added(found, moment)
        save_series(series, self.path, overwrite=True)

    def series(self) -> Series:
        """Load the series from the file.

        Raises:
            FormatError: there is no file yet, or it is damaged.
        """
        return load_series(self.path)
