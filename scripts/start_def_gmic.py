"""Weights for def-gmic to begin with: those of a trained gmic, with offsets of 0.

    python scripts/start_def_gmic.py runs/gmic/final.safetensors runs/def-gmic-start.safetensors

Where offsets are 0 a deformable convolution is an ordinary one, so that both networks compute the same.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from erf.models import create_model


def main(gmic: Path, start: Path) -> None:
    """Write the weights of def-gmic."""
    tensors = create_model("def-gmic").state_dict() | load_file(gmic)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, start)
    print(f"written: {start}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
