"""Annotated images: labels, findings, masks, and the data split they belong to."""

from erf.datasets.choice import ExampleChoice
from erf.datasets.example import Example, ExampleSet, Finding
from erf.datasets.sources import load_examples
from erf.datasets.split import SPLITS, split_by_patient

__all__ = ["SPLITS", "Example", "ExampleChoice", "ExampleSet", "Finding", "load_examples", "split_by_patient"]
