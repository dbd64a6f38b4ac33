"""Effective receptive fields over a training: of saved weights, or while it goes on."""

from erf.tracking.monitor import TrainingMonitor
from erf.tracking.snapshots import Snapshot, compute_series, find_snapshots

__all__ = ["Snapshot", "TrainingMonitor", "compute_series", "find_snapshots"]
