"""Weights that a network of torchvision's begins with: published ones, or those in a file, whatever their classes."""

import http.client
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from cifar_tuning.locked import locked
from cifar_tuning.network import lend_certificates, socket_timeout

log = logging.getLogger(__name__)

# Seconds without an answer after which an address counts as unreachable.
TIMEOUT = 30.0
# Where others keep a network's state in a file that has more in it; so do this project's checkpoints.
WITHIN = ("model", "state_dict")
# GoogLeNet's and Inception's, for training alone; published with the rest.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# Names of DenseNet's layers in its published weights, which are older than the rule against dots in names.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# Lines of PyTorch's on what does not fit that are shown, and the length of each.
SHOWN, LENGTH = 3, 160


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that is not trained: it keeps its statistics, and uses them in training too."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stays in evaluation mode."""
        return super().train(False)


def fetch(weights: Any) -> dict[str, Tensor]:
    """Returns the state that torchvision publishes, from PyTorch's cache or else the network; it stays in the cache.

    Args:
        weights: a member of torchvision's enumeration.

    Raises:
        ConnectionError: it is not in the cache and can't be downloaded.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
    if file.is_file():
        return weights.get_state_dict()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # PyTorch gives the file its name once it is whole, so nobody reads a part of it; but each process would fetch
        # one.
        busy = f"Another process is downloading {file.name}; waiting for it"
        with locked(Path(f"{file}.lock"), busy), socket_timeout(TIMEOUT):
            lend_certificates()
            return weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # the last: a wrong checksum
        raise ConnectionError(
            f"model.weights={weights.name}: {weights.url} can't be downloaded ({error}); bring that file to "
            f"{file.parent} by other means, or name one with model.weights=FILE"
        ) from error


def read(path: str) -> dict[str, Tensor]:
    """Returns the state of a network in a file; nothing but tensors and plain values is ever unpickled.

    Args:
        path: of a `state_dict` as PyTorch saves it, by itself or as the entry `model` or `state_dict`, or of a
            checkpoint of this project; or a run's folder, for its `best.pt`.

    Raises:
        ValueError: there is no such file, or something else is in it.
    """
    file = Path(path).expanduser()
    file = file / "best.pt" if file.is_dir() else file
    if not file.is_file():
        raise ValueError(f"model.weights={path}: there is no file {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged or foreign file
        raise ValueError(
            f"model.weights={path}: can't be read ({type(error).__name__}): it must be a state_dict as torch.save "
            "writes it, of tensors alone"
        ) from error
    inner = [content[key] for key in WITHIN if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    state = inner[0] if inner else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"model.weights={path}: holds no state_dict, but a {type(state).__name__} of other things")
    consume_prefix_in_state_dict_if_present(state, "module.")  # of DataParallel
    return state


def last_layer(model: nn.Module) -> str:
    """Returns the name of the layer that makes a number for each class: the last one with weights."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def load(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Puts a state into a network; where it is one of other classes, all but the last layer, and says so.

    Args:
        model: of torchvision's; a last layer that the state does not fit keeps its initial weights.
        state: by torchvision's names; it is changed.
        source: what to call it.

    Raises:
        ValueError: it is another network's.
    """
    mine, head = model.state_dict(), last_layer(model)
    for key in list(state):  # in place: PyTorch has hung the versions of the layers onto it
        if key.startswith(AUXILIARY) and key not in mine:
            del state[key]
        elif (name := OLD_DENSENET.sub(r"\1\2", key)) != key:
            state[name] = state.pop(key)
    of_head = [key for key in mine if key.startswith(f"{head}.")]
    theirs = state.get(f"{head}.weight")
    if fresh := any(key not in state or state[key].shape != mine[key].shape for key in of_head):
        state.update({key: mine[key] for key in of_head})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [shorten(line, LENGTH, placeholder=" …") for line in str(error).splitlines()[1:]]
        more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
        stems = len(lines) == 1 and "mismatch for conv1.weight" in lines[0]
        stem = "; has one of the two model.small_images=true?" if stems else ""
        raise ValueError(
            f"model.weights={source}: are another network's: {' '.join(lines[:SHOWN])}{more}{stem}"
        ) from error
    there = "none" if theirs is None else f"{len(theirs):,} outputs"
    here = f"{len(mine[f'{head}.weight']):,}"
    last = f"but for the last layer, {head}, which is new ({there} there, {here} here)"
    log.info("begins with the weights of %s, %s", source, last if fresh else f"the last layer's, {head}, among them")


def freeze(model: nn.Module) -> None:
    """Leaves the last layer alone to be trained; batch norm before it keeps its statistics."""
    model.requires_grad_(False)
    model.get_submodule(last_layer(model)).requires_grad_(True)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = FrozenBatchNorm2d
            module.eval()
