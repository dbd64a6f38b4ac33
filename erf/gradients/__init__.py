"""Gradients of a unit with respect to the input, and the ways to compute them."""
