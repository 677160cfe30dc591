"""Lets torchvision be imported beside a torch build that its compiled extension does not match.

The torchvision wheel of the package registry is built for CUDA. Beside a CPU-only torch its
extension cannot load, and ``import torchvision`` (hence timm, diffusers, peft and transformers)
fails with ``operator torchvision::nms does not exist``. Nothing in truelike calls that operator, so
declaring its schema is enough. The declaration is made at the moment torchvision is first looked
up, and only if its extension does not load: a working torchvision is left alone.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # the library object undoes its declarations when it is collected


class _TorchvisionFinder:
    """Import hook that finds nothing itself and prepares torch when torchvision is looked up."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name == "torchvision" and not _declared:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None and not _extension_loads(spec):
                _declare_schemas()


def _extension_loads(spec: importlib.machinery.ModuleSpec) -> bool:
    import torch

    finder = importlib.machinery.FileFinder(
        (spec.submodule_search_locations or [""])[0],
        (
            importlib.machinery.ExtensionFileLoader,
            [*importlib.machinery.EXTENSION_SUFFIXES, ".pyd"],
        ),
    )
    extension = finder.find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return False
    return True


def _declare_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)


def install() -> None:
    """Install the import hook, once per process."""
    if not any(finder is _TorchvisionFinder for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionFinder)
