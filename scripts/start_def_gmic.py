"""Create initial weights for def-gmic: those of a trained gmic, with offsets of 0.

    python scripts/start_def_gmic.py runs/gmic/final.safetensors runs/def-gmic-start.safetensors

With offsets of 0 a deformable convolution is an ordinary one, so both networks compute the same function.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from erf.models import create_model


def main(gmic: Path, start: Path) -> None:
    """Write the initial weights of def-gmic to `start`, from the weights file `gmic`."""
    tensors = create_model("def-gmic").state_dict() | load_file(gmic)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, start)
    print(f"written: {start}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
