"""Architectures, one a file, and the non-linearities."""

from cifar_tuning.models.activations import ACTIVATIONS, Swish
from cifar_tuning.models.resnet import ResNet
from cifar_tuning.models.simplenn import SimpleNN
from cifar_tuning.models.torchvision_models import torchvision_model

__all__ = ["ACTIVATIONS", "ResNet", "SimpleNN", "Swish", "torchvision_model"]
