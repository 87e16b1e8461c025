"""byzfl's aggregators, pre-aggregators and attacks, without the rest of byzfl.

Its package imports its training code, and with it torchvision, matplotlib and seaborn; a torchvision that was built for
another torch (from the index of CUDA builds, beside a torch for the CPU) does not even import.
"""

import importlib
import importlib.util
import sys
from types import ModuleType


def load() -> tuple[ModuleType, ModuleType]:
    """The modules of byzfl's aggregators and of its pre-aggregators. Raises ModuleNotFoundError."""
    return _module("aggregators.aggregators"), _module("aggregators.preaggregators")


def load_attacks() -> ModuleType:
    """The module of byzfl's attacks. Raises ModuleNotFoundError."""
    return _module("attacks.attacks")


def _module(name: str) -> ModuleType:
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("byzfl is not installed: pip install -e '.[dev]'", name="byzfl")
        bare = sys.modules["byzfl"] = ModuleType("byzfl")
        bare.__path__ = list(spec.submodule_search_locations)
    return importlib.import_module(f"byzfl.{name}")
