"""Compare shares of mass within radii with those that OpenERF computed for the same arrays.

Usage: python scripts/check_openerf.py FOLDER

FOLDER holds pairs of files NAME.npy and NAME_metrics.json from OpenERF's results. Ends with code 1 if any share differs
by more than 1e-9.
"""

import json
import sys
from pathlib import Path

import erf

TOLERANCE = 1e-9


def largest_difference(file: Path) -> float:
    """Largest difference between a share of ours and of OpenERF."""
    theirs = json.loads(file.with_name(f"{file.stem}_metrics.json").read_text(encoding="utf-8"))
    y, x = theirs["center_yx"]
    found = erf.import_map(file, center=(y, x))
    masses = {float(radius): mass for radius, mass in theirs["radial_cumulative_mass"].items()}
    ours = erf.radial_mass(found["all"].mean, list(masses), found.provenance.unit_center)
    return max(abs(one - other) for one, other in zip(ours, masses.values(), strict=True))


def main() -> int:
    files = sorted(Path(sys.argv[1]).glob("*.npy")) if len(sys.argv) == 2 else []
    if not files:
        print(f"found no arrays; usage: {Path(sys.argv[0]).name} FOLDER")
        return 2
    differences = {file.stem: largest_difference(file) for file in files}
    for name, difference in differences.items():
        print(f"{name}: {difference:.1e}")
    return int(max(differences.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
