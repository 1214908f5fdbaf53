"""Weakly-supervised semantic segmentation from image tags: WS-FCN and 1-stage-wseg, rebuilt to be read.

The names below are loaded on first use, so `import wsfcn_lib` costs nothing and CRF worker processes start without torch.
"""

import os
from importlib import import_module

# PyTorch's threads wait for each other by spinning. Beside any other busy process that starves them: a step of the built-in
# run then took 2.1 s instead of 0.11 s. Waiting briefly and then sleeping costs nothing measurable on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is first loaded
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # Apple's GPUs lack a few operations, grid_sample's gradient among them

__version__ = "0.1.0"
_HOMES = {
    "NetConfig": "config",
    "TrainConfig": "config",
    "WSFCN": "network",
    "BaselineCAM": "network",
    "NetOutput": "network",
    "segment": "infer",
}
__all__ = [*_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"wsfcn_lib has no {name!r}; it offers {', '.join(_HOMES)}, or import one of its modules")
    return getattr(import_module(f"wsfcn_lib.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
