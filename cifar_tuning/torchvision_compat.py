"""The one place that imports torchvision: `from cifar_tuning.torchvision_compat import torchvision`.

A torchvision built for CUDA beside a CPU build of torch (a common mix) can't load its compiled extension, and
then fails on import with `operator torchvision::nms does not exist`: it registers fake kernels for two
operators which only that extension declares. Datasets and transforms need no compiled operator, so we declare
the two schemas ourselves. Where the extension loads, nothing is declared.
"""

import contextlib
import importlib.util
import sys
from importlib.machinery import PathFinder

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    """Whether torchvision's `_C` library goes into this torch; torchvision loading it again is harmless."""
    package = importlib.util.find_spec("torchvision")  # finds the package without importing it
    library = PathFinder.find_spec("_C", package.submodule_search_locations) if package else None
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except (ImportError, OSError):
        return False
    return True


def _declare_missing_operators() -> torch.library.Library | None:
    if "torchvision" in sys.modules or _extension_loads():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        with contextlib.suppress(RuntimeError):  # declared already, by somebody with the same idea
            library.define(schema)
    return library


# The declarations live as long as this object does.
_declarations = _declare_missing_operators()

import torchvision  # noqa: E402
import torchvision.transforms.v2  # noqa: E402

__all__ = ["torchvision"]
