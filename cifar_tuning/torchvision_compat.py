"""The one place that imports torchvision: `from cifar_tuning.torchvision_compat import torchvision`.

A torchvision built for CUDA beside a CPU build of torch (a common mix) can't load its compiled extension, and
then fails on import with `operator torchvision::nms does not exist`: it registers fake kernels for two
operators which only that extension declares. Datasets and transforms need no compiled operator, so we declare
the two schemas ourselves. Where the extension loads, nothing is declared.
"""

import contextlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _extension_loads() -> bool:
    """Whether torchvision's `_C` library goes into this torch; torchvision loading it again is harmless."""
    spec = importlib.util.find_spec("torchvision")  # finds the package without importing it
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            library = Path(folder, f"_C{suffix}")
            if library.is_file():
                try:
                    torch.ops.load_library(str(library))
                except (ImportError, OSError):
                    return False
                return True
    return False


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
