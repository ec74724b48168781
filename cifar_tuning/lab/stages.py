"""Claim 1.9: SqueezeNet puts most of its computations in the later stages. Its MACs stage by stage, and AlexNet's."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# The papers' names of torchvision's modules that have weights, in the order of the network.
STAGES: dict[str, dict[str, str]] = {
    # Iandola et al. 2016, "SqueezeNet", table 1
    "squeezenet1_0": {
        "features.0": "conv1",
        "features.3": "fire2",
        "features.4": "fire3",
        "features.5": "fire4",
        "features.7": "fire5",
        "features.8": "fire6",
        "features.9": "fire7",
        "features.10": "fire8",
        "features.12": "fire9",
        "classifier.1": "conv10",
    },
    # Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"
    "alexnet": {
        "features.0": "conv1",
        "features.3": "conv2",
        "features.6": "conv3",
        "features.8": "conv4",
        "features.10": "conv5",
        "classifier.1": "fc6",
        "classifier.4": "fc7",
        "classifier.6": "fc8",
    },
}


@dataclass(frozen=True)
class Stage:
    """What a stage of a network costs.

    Args:
        name: as in the paper.
        side: height and width of its output, pixels; 1 for a fully connected layer.
        macs: multiply-accumulate operations of one image.
        parameters: weights and biases.
        macs_share: of the network's MACs, 0 to 1.
        macs_up_to: share of the MACs in this stage and all before it.
        parameters_share: of the network's parameters, 0 to 1.
    """

    name: str
    side: int
    macs: int
    parameters: int
    macs_share: float
    macs_up_to: float
    parameters_share: float


def network_stages(network: str) -> list[Stage]:
    """Counts a network of torchvision's stage by stage; nothing is computed or downloaded.

    Args:
        network: `squeezenet1_0` or `alexnet`.
    """
    from cifar_tuning.torchvision_compat import torchvision

    names = STAGES[network]
    sides: dict[str, int] = {}
    with torch.device("meta"):  # shapes without numbers
        model: nn.Module = torchvision.models.get_model(network, weights=None).eval()
        modules = {path: model.get_submodule(path) for path in names}
        for path, module in modules.items():
            module.register_forward_hook(lambda _m, _i, output, path=path: sides.update({path: _side(output)}))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 224, 224))  # as in ImageNet
    flops = counter.get_flop_counts()
    root = type(model).__name__
    macs = [sum(flops[f"{root}.{path}"].values()) // 2 for path in names]
    parameters = [sum(p.numel() for p in module.parameters()) for module in modules.values()]
    return [
        Stage(names[path], sides[path], own, weights, own / sum(macs), up_to / sum(macs), weights / sum(parameters))
        for path, own, weights, up_to in zip(names, macs, parameters, accumulate(macs), strict=True)
    ]


def share_of_first_half(stages: Sequence[Stage]) -> float:
    """Returns the share of the MACs, 0 to 1, in the first half of the stages; a middle stage counts to the second.

    SqueezeNet's ten stages are halved behind fire5, AlexNet's eight behind conv4.
    """
    return sum(stage.macs_share for stage in stages[: len(stages) // 2])


def _side(output: Tensor) -> int:
    return output.shape[2] if output.ndim == 4 else 1
