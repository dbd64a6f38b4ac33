"""How a network is called: its inputs, layers, modes and devices, whatever its architecture."""
