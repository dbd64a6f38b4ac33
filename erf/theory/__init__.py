"""Theoretical receptive fields, followed through the operators that a network runs."""
