"""Networks of the papers, by name: `create_model("hct")`, `list_models("gmic*")`."""

if __name__ != "erf.models":
    raise ImportError(f"the model package is imported as erf.models, not as {__name__}: write `import erf.models`")

from . import def_gmic, gmic, hct  # registers them
from .registry import ModelCard, ModelError, create_model, list_models, model_card
from .weights import WeightsError, load_weights

__all__ = [
    "ModelCard",
    "ModelError",
    "WeightsError",
    "create_model",
    "def_gmic",
    "gmic",
    "hct",
    "list_models",
    "load_weights",
    "model_card",
]
