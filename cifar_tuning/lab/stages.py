"""Claim 1.9: SqueezeNet puts most of its computations in the later stages. Its MACs stage by stage, and AlexNet's."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_tuning.models.facts import count_parameters

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
        macs: multiply-accumulate operations of one image.
        parameters: weights and biases.
    """

    name: str
    macs: int
    parameters: int


def network_stages(network: str) -> list[Stage]:
    """Counts a network of torchvision's stage by stage; nothing is computed or downloaded.

    Args:
        network: `squeezenet1_0` or `alexnet`.
    """
    from cifar_tuning.torchvision_compat import torchvision

    with torch.device("meta"):  # shapes without numbers
        model: nn.Module = torchvision.models.get_model(network, weights=None).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 224, 224))  # as in ImageNet
    flops = counter.get_flop_counts()
    return [
        Stage(
            name,
            sum(flops[f"{type(model).__name__}.{path}"].values()) // 2,
            count_parameters(model.get_submodule(path)),
        )
        for path, name in STAGES[network].items()
    ]
