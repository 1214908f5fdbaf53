"""Weakly-supervised semantic segmentation from image tags: WS-FCN and 1-stage-wseg, rebuilt to be read.

The names below are loaded on first use, so `import wsfcn_lib` costs nothing and CRF workers start without torch.
"""

import os
from collections.abc import Callable
from importlib import import_module

# PyTorch's threads wait for each other by spinning. Beside any other busy process that starves them: a step
# of the built-in run then took 2.1 s instead of 0.11 s. Waiting briefly and then sleeping costs nothing
# measurable on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is first loaded
# Apple's GPUs lack a few operations, grid_sample's gradient among them
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.1.0"


def front_door(package: str, homes: dict[str, str]) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` of a package that offers names from its modules, {name: module}.

    A module is imported when one of its names is first asked for.
    """

    def getattr_(name: str) -> object:
        if name not in homes:
            offered = ", ".join(sorted(homes))
            raise AttributeError(
                f"{package} has no {name!r}; it offers {offered}, or import one of its modules"
            )
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def dir_() -> list[str]:
        return sorted(homes)

    return getattr_, dir_


__getattr__, __dir__ = front_door(
    __name__,
    {
        "NetConfig": "config",
        "TrainConfig": "config",
        "WSFCN": "network",
        "BaselineCAM": "network",
        "NetOutput": "network",
        "segment": "infer",
    },
)
