"""A stand-in for mamba_ssm, whose CUDA kernels cannot be installed everywhere."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGE = "mamba_ssm"
_MODULES = (_PACKAGE, f"{_PACKAGE}.ops", f"{_PACKAGE}.ops.selective_scan_interface")
_FUNCTIONS = ("selective_scan_fn", "selective_scan_ref")


class MambaStandIn(ModuleType):
    """Module with the functions of mamba_ssm.ops.selective_scan_interface that are a selective scan."""

    is_used = False
    """Whether one of the functions was looked up."""

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise AttributeError(f"the stand-in for {self.__name__} has no '{name}', only {', '.join(_FUNCTIONS)}")
        from .layers.selective_scan import selective_scan  # its operator takes time to define

        self.is_used = True
        return selective_scan


@contextmanager
def plain_selective_scan() -> Iterator[MambaStandIn]:
    """Context manager in which `mamba_ssm`, if it is not installed, has a selective scan in plain PyTorch.

    Networks that import `selective_scan_fn` from `mamba_ssm.ops.selective_scan_interface` can then be built, and run
    on a CPU also afterwards, if they import it when they are imported or built. An installed `mamba_ssm` is left as it
    is. `erf.build_network`, and so every command, builds networks in this context.

    Example:
        >>> import erf
        >>> with erf.plain_selective_scan():
        ...     from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    """
    stand_in = MambaStandIn(_MODULES[-1])
    if _PACKAGE in sys.modules or importlib.util.find_spec(_PACKAGE) is not None:
        yield stand_in
        return
    outer = [ModuleType(name) for name in _MODULES[:-1]]
    for module in outer:
        module.__path__ = []
    outer[0].ops, outer[1].selective_scan_interface = outer[1], stand_in  # type: ignore[attr-defined]
    sys.modules.update(zip(_MODULES, (*outer, stand_in), strict=True))
    try:
        yield stand_in
    finally:
        for name in _MODULES:
            sys.modules.pop(name, None)
