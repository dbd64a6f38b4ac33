"""One call of `erf compute`: the images, the network, the settings and the outputs that determine it."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from erf.building import Network
from erf.building.weights import code_digest
from erf.cli.console import warn
from erf.cli.processes import Processes
from erf.engine import find_units
from erf.engine.file_run import identify, identity_digest
from erf.engine.settings import Settings
from erf.images import PHANTOM, ImageSet, ProgressReport, choose_images
from erf.images.readers import READ_SUFFIXES
from erf.protocols import load_protocol
from erf.results import Origin
from erf.storage.files import complete_file
from erf.storage.outputs import check_no_input, check_not_within
from erf.storage.privacy import Anonymity, drawn_salt
from erf.storage.staging import Staging

_PATHLIKE = re.compile(r"[^\w.+-]")
"""Characters that are not safe in file names."""

MOST_DRAWN = 12
"""Most fields drawn in one picture."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choice of images and their preprocessing."""

    source: str
    n: int
    image_seed: int
    normalisation: str
    """'' for the network's own, as for the two that follow."""
    fit: str
    interpolation: str
    mirror: bool
    lesions: int
    allow_outside: bool

    def choose(self, network: Network, progress: ProgressReport) -> ImageSet:
        """Choose the images for a network; warn if there are fewer than requested."""
        framing = network.framing(self.normalisation, self.fit, self.interpolation, source=self.source)
        chosen = choose_images(
            self.source,
            replace(framing, mirror=self.mirror),
            n=self.n,
            seed=self.image_seed,
            inputs=network.arguments.names,
            lesions=self.lesions,
            allow_outside=self.allow_outside,
            progress=progress,
        )
        if len(chosen) < self.n:
            warn(f"{self.source} has {len(chosen)} images, {self.n} were asked for; all of them are used")
        return chosen

    def check_outputs(self, outputs: Sequence[Path], images: ImageSet) -> None:
        """Raise `OutputError` if an output is one of the images, or the manifest."""
        files = [one.file for image in images.images for one in image.parts or (image,)]
        check_no_input(outputs, [Path(self.source), *files])
        if Path(self.source).is_dir():
            check_not_within(outputs, Path(self.source), READ_SUFFIXES)


@dataclass(frozen=True)
class Job:
    """One call of `erf compute`."""

    network: Network
    selection: Selection
    layers: Sequence[str]
    settings: Settings
    output: Path
    picture: Path | None
    overwrite: bool
    resume: bool
    part: tuple[int, int]
    """(i, n), counted from 1: the part of the images that this process computes."""
    processes: Processes
    privacy: Anonymity | None = None
    """Anonymisation settings; None to keep names."""
    protocol: str = ""
    deviations: tuple[str, ...] = ()
    """Options that differ from those of the protocol."""

    def salted(self, folder: Path | None = None) -> "Job":
        """Return the job with a salt: the given one, the one saved in the run's progress folder, or a new one."""
        if self.privacy is None or self.privacy.salt:
            return self
        kept = folder / ".salt" if folder else None
        salt = kept.read_text() if kept and kept.exists() else drawn_salt()
        if kept:
            with complete_file(kept) as part:
                part.write_text(salt)
        return replace(self, privacy=replace(self.privacy, salt=salt))

    def hidden(self, images: ImageSet) -> ImageSet:
        """Return the images, anonymised if requested."""
        return images if self.privacy is None else self.privacy.images(images)

    def identity(self, images: ImageSet) -> dict[str, Any]:
        """Return all settings that determine the results; they are equal for all parts of a run."""
        network = self.network
        selection = {
            name: value for name, value in asdict(self.selection).items() if name not in ("source", "allow_outside")
        }
        facts = {
            "model": network.name if self.privacy is None else Path(network.name).name,
            "code": code_digest(network.name),
            "model options": network.options,
            "weights sha256": network.weights_sha256,
            "layers": list(self.layers),
            "size": list(network.size),
            **selection,
            "images": images.digest,
            "anonymous": self.privacy is not None,
        }
        return {name.replace("_", " "): value for name, value in identify(self.settings, facts).items()}

    def identified(self, identity: Mapping[str, Any], **weights: str) -> Origin:
        """Return the origin with a digest of the identity; `weights` replaces entries about the weights."""
        return self.origin(identity=identity_digest(identity), **weights)

    def origin(self, **known: str) -> Origin:
        """Return the provenance that the engine cannot know; `known` replaces some of its values."""
        found = replace(self._origin(), **known)  # type: ignore[arg-type]
        return found if self.privacy is None else self.privacy.origin(found)

    def _origin(self) -> Origin:
        return self.network.origin(
            image_seed=self.selection.image_seed,
            source=self.selection.source,
            command=shlex.join(["erf", *sys.argv[1:]]),
            protocol=load_protocol(self.protocol).name if self.protocol else "",
            deviations=self.deviations,
        )

    def begin(self, files: Sequence[Path], staging: Staging, identity: Mapping[str, Any]) -> None:
        """Bind the saved progress of the output `files` to this run, identified by its settings."""
        source = self.selection.source if self.selection.source == PHANTOM else os.path.abspath(self.selection.source)
        if self.privacy is not None:
            source = sha256(source.encode(errors="surrogateescape")).hexdigest()  # paths may contain names of people
        staging.begin(
            dict(identity)
            | {"source": source, "processes": self.processes.count, "shard": f"{self.part[0]}/{self.part[1]}"}
            | {"outputs": [path.name for path in files]}
        )

    def drawing(self, files: Sequence[Path]) -> Path | None:
        """Return the picture to draw, or None if there is none or too many results for one."""
        return self.picture if len(files) <= MOST_DRAWN else None

    def files(self) -> list[Path]:
        """List the output files, one per layer and unit; the network is run only if units have to be resolved."""
        single = self.settings.moves or not any(mark in str(self.settings.unit) for mark in (";", "grid:"))
        units = (
            [(layer, ()) for layer in self.layers]
            if single
            else find_units(self.network.model, self.network.input_shape, self.layers, self.settings)
        )
        names = []
        for layer, unit in units:
            of_layer = f".{_PATHLIKE.sub('-', layer)}" if len(self.layers) > 1 else ""
            of_unit = f".{'-'.join(map(str, unit))}" if len(units) > len(self.layers) else ""
            names.append(self.output.with_suffix(f"{of_layer}{of_unit}{self.output.suffix}"))
        return names
