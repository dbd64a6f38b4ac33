"""Interface to any network: its inputs, layers, modes and devices."""
