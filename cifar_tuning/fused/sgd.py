"""SGD for all runs of a stack at once: each operation updates all runs' weights, each run with its own settings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cifar_tuning.fused.twin import part_of
from cifar_tuning.training.trainer import Trainer

# Learning rate, momentum, weight decay and whether it is Nesterov's, for each parameter group of each run.
Numbers = list[tuple[float, float, float, bool]]


class StackedSGD:
    """Steps all runs of a stack with a handful of kernels, where K optimizers launch a handful each.

    With g the gradient, λ weight decay, μ momentum and η learning rate, as in PyTorch's SGD (Sutskever et al. 2013, "On
    the importance of initialization and momentum in deep learning"):

        d = g + λw,  b = μb + d,  w = w - η·b,  or with Nesterov's momentum  w = w - η·(d + μb)

    The stacked parameters, their gradients and the runs' momentum buffers become parts of three long vectors; the runs'
    own parameters and optimizer states become views of them, so that checkpoints keep what they do of a run by itself.

    Args:
        runs: in the order in which they are stacked.
        stacked: their models as one; its parameters have gradients.
    """

    def __init__(self, runs: Sequence[Trainer], stacked: nn.Module) -> None:
        named = {name: p for name, p in stacked.named_parameters() if p.requires_grad}
        # Each weight's memory behind the last one's, in the order that it has there.
        self.weights = torch.cat([p.data.as_strided((p.numel(),), (1,)) for p in named.values()])
        self.gradients, self.buffers = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.groups = [group for run in runs for group in run.optimizer.param_groups]
        of_group = {id(p): index for index, group in enumerate(self.groups) for p in group["params"]}
        owners = [(run, dict(run.model.named_parameters())) for run in runs]
        indices, counts, begin = [], [], 0
        for name, p in named.items():
            vectors = self.weights, self.gradients, self.buffers
            p.data, p.grad, buffer = (vector.as_strided(p.shape, p.stride(), begin) for vector in vectors)
            begin += p.numel()
            for number, (run, parameters) in enumerate(owners):
                own = parameters[name]
                own.data, own.grad = part_of(p.data, number, own), part_of(p.grad, number, own)
                index = of_group[id(own)]
                _adopt_buffer(run, own, part_of(buffer, number, own), bool(self.groups[index]["momentum"]))
                indices.append(index)
                counts.append(own.numel())
        # Which group each number of the vectors belongs to.
        each = torch.tensor(indices, dtype=torch.int32).repeat_interleave(torch.tensor(counts))
        self.of_group = each.to(self.weights.device)
        self.numbers: Numbers = []
        self.rows = torch.zeros((4, len(self.weights)), dtype=self.weights.dtype, device=self.weights.device)
        self.nesterov = False

    @staticmethod
    def fits(runs: Sequence[Trainer]) -> bool:
        """Whether all runs' optimizers are plain SGD over all their weights, so that what is kept here is their state.

        PyTorch's leaves a buffer alone while momentum is 0, which a schedule may make it.
        """
        return all(type(run.optimizer) is torch.optim.SGD and _is_plain(run) for run in runs)

    def take_numbers(self) -> None:
        """Looks what the runs' optimizers say now; their schedules change it."""
        numbers = [(g["lr"], g["momentum"], g["weight_decay"], g["nesterov"]) for g in self.groups]
        if numbers == self.numbers:
            return
        self.numbers, self.nesterov = numbers, any(nesterov for *_, nesterov in numbers)
        table = torch.tensor(
            [(lr * mu if nesterov else lr, mu, decay, lr if nesterov else 0.0) for lr, mu, decay, nesterov in numbers],
            dtype=self.weights.dtype,
            pin_memory=self.weights.is_cuda,  # or the copy may wait for the device
        ).T
        # Into the same memory, because that is what a recorded step reads; the only transfer.
        torch.index_select(table.to(self.weights.device, non_blocking=True), 1, self.of_group, out=self.rows)

    def step(self) -> None:
        """Takes one step of every run; nothing in it waits for the device."""
        rate, momentum, decay, of_step = self.rows
        with torch.no_grad():
            step = torch.addcmul(self.gradients, self.weights, decay)
            torch.addcmul(step, self.buffers, momentum, out=self.buffers)
            self.weights.addcmul_(self.buffers, rate, value=-1)
            if self.nesterov:
                self.weights.addcmul_(step, of_step, value=-1)

    def zero_grad(self) -> None:
        """Forgets the last step's gradients, which keep their memory."""
        self.gradients.zero_()


def _is_plain(run: Trainer) -> bool:
    groups = run.optimizer.param_groups
    stepped = {id(p) for group in groups for p in group["params"]}
    unusual = any(
        g["dampening"] or g["maximize"] or g["differentiable"] or g.get("base_momentum", 1) <= 0 for g in groups
    )
    return not unusual and all(id(p) in stepped for p in run.model.parameters() if p.requires_grad)


def _adopt_buffer(run: Trainer, own: nn.Parameter, part: Tensor, momentum: bool) -> None:
    """Has a run's momentum buffer lie in a part of the vector; where it has not begun, that is zeros."""
    run.optimizer._opt_called = True  # type: ignore[attr-defined]  # or its schedule would warn
    state = run.optimizer.state
    if own in state and (known := state[own].get("momentum_buffer")) is not None:
        part.copy_(known)
    if momentum:
        state[own]["momentum_buffer"] = part
