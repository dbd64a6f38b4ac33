"""Mean, variance and per-image profiles of maps over images."""
