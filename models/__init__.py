"""The papers' networks, created by name: `create_model("hct")`, `list_models("gmic*")`."""

if __name__ != "erf.models":
    raise ImportError(f"the model package is imported as erf.models, not as {__name__}: write `import erf.models`")

from . import (  # noqa: F401 (each registers its networks)
    classifiers,
    danet,
    deeplabv3,
    def_gmic,
    fnet,
    gmic,
    hct,
    pspnet,
    spm,
    timm_networks,
    unet,
    wavemix,
)
from .creation import create_model, model_card
from .errors import ModelError, WeightsError
from .layers.spectral import reorthogonalise
from .registry import ModelCard, list_models
from .shipped import shipped_card, shipped_weights
from .weights import load_weights

__all__ = [
    "ModelCard",
    "ModelError",
    "WeightsError",
    "create_model",
    "list_models",
    "load_weights",
    "model_card",
    "reorthogonalise",
    "shipped_card",
    "shipped_weights",
]
