"""Annotated images: labels, findings, masks, and the data split they belong to."""

from erf.examples.example import Example, ExampleSet, Finding
from erf.examples.sources import load_examples
from erf.examples.split import SPLITS, split_by_patient

__all__ = ["SPLITS", "Example", "ExampleSet", "Finding", "load_examples", "split_by_patient"]
