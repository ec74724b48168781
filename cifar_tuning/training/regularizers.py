"""Regularizers: L2 as the optimizer's weight decay, L1 and elastic net as terms of the loss."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cifar_tuning.option_rules import FLAG, UP_TO_ONE, Rule, broken, number, raise_all


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the weights of convolutions and fully connected layers, and everything else.

    The second list holds what has at most one dimension: biases and batch norm's scale and shift. Pulling
    those to zero does not make the function simpler (Goodfellow et al. 2016, "Deep Learning", section 7.1).
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trainable if p.ndim > 1], [p for p in trainable if p.ndim <= 1]


class Regularizer:
    """No regularisation; the others override one of the two ways to take part in training.

    Args:
        strength: how much; what it multiplies is said by each subclass.

    Raises:
        ValueError: an option is out of range.
    """

    # A subclass adds those of its own options.
    RULES: ClassVar[dict[str, Rule]] = {
        "strength": number(lambda value: value >= 0, "a number, 0 or above, such as 1e-4"),
    }

    def __init__(self, strength: float = 0.0) -> None:
        raise_all(Regularizer.check(strength=strength))  # a subclass looks at its other options itself
        self.strength = float(strength)

    @classmethod
    def check(cls, **options: object) -> list[str]:
        """Returns a line for each option that is out of range; empty if all are right."""
        return broken("regularizer", cls.RULES, options)

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Returns the parameter groups to build the optimizer with."""
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Returns the term to add to each batch's loss, a scalar, or None if there is none."""
        return None


class L2(Regularizer):
    """Weight decay as the optimizer does it: coupled in SGD and Adam, decoupled in AdamW.

    In SGD and Adam it adds `strength`·w to the gradient, which is the penalty ½·strength·‖w‖² in the loss.

    Args:
        strength: the optimizer's `weight_decay`.
        norm_and_bias: whether batch norm's parameters and biases decay too. True is PyTorch's behaviour and
            the lab report's.
    """

    RULES: ClassVar[dict[str, Rule]] = Regularizer.RULES | {"norm_and_bias": FLAG}

    def __init__(self, strength: float, norm_and_bias: bool = True) -> None:
        raise_all(self.check(strength=strength, norm_and_bias=norm_and_bias))
        super().__init__(strength)
        self.norm_and_bias = norm_and_bias

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Returns one group with weight decay, or two, the second without."""
        weights, others = split_parameters(model)
        if self.norm_and_bias:
            everything = [p for p in model.parameters() if p.requires_grad]
            return [{"params": everything, "weight_decay": self.strength}]
        groups = [{"params": weights, "weight_decay": self.strength}]
        return [*groups, {"params": others, "weight_decay": 0.0}] if others else groups


class ElasticNet(Regularizer):
    """A mixture of L1 and L2 in the loss (Zou and Hastie 2005), parametrised as scikit-learn does.

    Adds strength·(l1_ratio·Σ|w| + ½·(1 - l1_ratio)·Σw²). The sums run over the weights of convolutions and
    fully connected layers; batch norm's parameters and biases are left alone.

    Args:
        strength: factor of the whole term.
        l1_ratio: share of L1, from 0 to 1.
    """

    RULES: ClassVar[dict[str, Rule]] = Regularizer.RULES | {"l1_ratio": UP_TO_ONE}

    def __init__(self, strength: float, l1_ratio: float = 0.5) -> None:
        raise_all(self.check(strength=strength, l1_ratio=l1_ratio))
        super().__init__(strength)
        self.l1_ratio = float(l1_ratio)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Returns the term as a scalar tensor with its gradient; None where no such weights are trained."""
        weights, _ = split_parameters(model)
        if self.strength == 0 or not weights:
            return None
        total = self.strength * self.l1_ratio * torch.stack([w.abs().sum() for w in weights]).sum()
        if self.l1_ratio < 1:
            squares = torch.stack([w.square().sum() for w in weights]).sum()
            total = total + 0.5 * self.strength * (1 - self.l1_ratio) * squares
        return total


class L1(ElasticNet):
    """The lasso: adds strength·Σ|w| to the loss, over convolution and fully connected weights only.

    Batch norm's parameters and biases are left alone.

    Args:
        strength: factor of the sum of absolute values.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength, l1_ratio=1.0)
