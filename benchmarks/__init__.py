"""Benchmarks that are run manually: `python -m benchmarks.compare`."""
