"""The non-linearities, by the names `model.activation=` takes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _SwishFunction(torch.autograd.Function):
    """x·sigmoid(βx) that keeps only x for the backward pass.

    Autograd on the plain expression keeps x, sigmoid(βx) and βx: three tensors the size of the
    activation. Recomputing the sigmoid costs one element-wise pass and saves two thirds of the memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(x, beta)
        return torch.sigmoid(x * beta).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        x, beta = ctx.saved_tensors
        sigmoid = torch.sigmoid(x * beta)
        # d/dx = σ + βx·σ(1-σ);  d/dβ = x²·σ(1-σ)
        slope = (1 - sigmoid).mul_(sigmoid).mul_(x)
        grad_beta = (grad * slope * x).sum().to(beta.dtype) if ctx.needs_input_grad[1] else None
        return slope.mul_(beta).add_(sigmoid).mul_(grad), grad_beta


class Swish(nn.Module):
    """Swish, x·sigmoid(βx) (Ramachandran et al. 2017, "Searching for Activation Functions", eq. 1).

    With β = 1 it is PyTorch's SiLU. The backward pass keeps only the input.

    Args:
        beta: β, any finite number.
        learnable: train β along with the weights.
    """

    def __init__(self, beta: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.learnable = learnable
        self.is_unit = beta == 1.0 and not learnable
        if learnable:
            self.beta: Tensor = nn.Parameter(torch.tensor(float(beta)))
        else:
            self.register_buffer("beta", torch.tensor(float(beta)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps element by element; any shape."""
        if torch.compiler.is_exporting():  # a saved model holds plain operators, not our Python class
            return x * torch.sigmoid(x * self.beta)
        return F.silu(x) if self.is_unit else _SwishFunction.apply(x, self.beta)

    def extra_repr(self) -> str:
        """Shows β when the module is printed."""
        return f"beta={self.beta.item():g}, learnable={self.learnable}"


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # In place: no layer of ours needs what it overwrites, and it saves a pass over fresh memory.
    "relu": partial(nn.ReLU, inplace=True),
    "swish": Swish,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

# max(f(a), f(b)) = f(max(a, b)) for these, so max-pooling may go first and leave them a quarter of the work.
MONOTONE = frozenset({"relu", "leaky_relu", "elu", "tanh"})
