"""Small pictures of maps inside a page: PNG as the address of an image."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

_COLORS = 64


def data_url(picture: Image.Image) -> str:
    """Return a picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shaded(values: NDArray[np.floating], name: str = "viridis") -> str:
    """Return the address of a picture of values from 0 to 1 in 64 colours of a colour map of matplotlib."""
    picture = Image.fromarray(np.rint(values * (_COLORS - 1)).astype(np.uint8), "P")
    picture.putpalette(colormaps[name](np.linspace(0, 1, _COLORS), bytes=True)[:, :3].tobytes())
    return data_url(picture)


def gradient(name: str, steps: int = 9) -> str:
    """Return a colour map as a gradient of CSS, from left to right."""
    colors = (to_hex(color) for color in colormaps[name](np.linspace(0, 1, steps)))
    return f"linear-gradient(to right, {', '.join(colors)})"
