"""Claim 1.10: shortcuts make the loss surface smoother. The surface around a trained network, over two directions."""

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cifar_tuning.reporting.drawing import save_figure, styled
from cifar_tuning.training.evaluation import Logits, evaluate
from cifar_tuning.training.settings import place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTOURS = 25
# A loss that was rounded to zero still has a place on the logarithmic axis.
LEAST_LOSS = 1e-6
# A second difference of float32 losses is uncertain by some 1e-7 of the loss; a curvature below this is none.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Surface:
    """Losses on a grid around a network with weights θ: at θ + αδ + βη for directions δ, η.

    Args:
        alphas: α, ascending, equally spaced; the middle one is 0.
        betas: β, the same.
        losses: mean cross-entropy, `losses[i][j]` at `alphas[i]`, `betas[j]`; may be NaN or infinite far out.
        accuracies: share of right answers, 0 to 1, on the same grid.
    """

    alphas: list[float]
    betas: list[float]
    losses: list[list[float]]
    accuracies: list[list[float]]

    def content(self) -> dict[str, Any]:
        """Returns the surface for a JSON file, to six decimals; a loss that is not finite becomes None."""
        content = asdict(self)
        for name in ("losses", "accuracies"):
            content[name] = [[round(v, 6) if math.isfinite(v) else None for v in row] for row in content[name]]
        return content

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads what `content` returned from a JSON file; null becomes NaN."""
        content = json.loads(file.read_text())
        content["losses"] = [[math.nan if loss is None else loss for loss in row] for row in content["losses"]]
        return cls(**content)


@dataclass(frozen=True)
class Curvature:
    """How far a surface is from convex.

    At every inner point of the grid stands the Hessian of the loss in α and β, by central differences; λmin
    and λmax are its eigenvalues. Li et al. 2018 (section 6) map |λmin / λmax| of the network's whole
    Hessian over such a surface; here it is the Hessian of the two-dimensional slice. Where the slice is not
    convex, the full loss is not either; the converse does not hold (same section).

    Args:
        nonconvex_share: share of the inner points with λmin < 0, 0 to 1.
        negative_ratio: mean over the inner points of max(0, -λmin) / max(|λmin|, |λmax|), 0 (convex
            everywhere) to 1 (concave everywhere).
        points: how many inner points were judged: those whose neighbours all have finite losses.
    """

    nonconvex_share: float
    negative_ratio: float
    points: int


def filter_normalised_direction(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Draws a random direction whose filters are as long as the network's.

    Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4: d_ij ← d_ij / ‖d_ij‖ · ‖θ_ij‖
    for filter j of layer i, d Gaussian, Frobenius norms. A row of a fully connected layer is a filter. Biases
    and the parameters of batch normalisation do not move: they have no entry.

    Args:
        model: gives names, shapes and norms.
        generator: on the CPU, so that every device gets the same direction.

    Returns:
        a tensor like the parameter, on its device, by the parameter's name.
    """
    direction = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        scale = _filter_norms(parameter.detach()) / _filter_norms(drawn)
        direction[name] = drawn * scale.view(-1, *[1] * (drawn.ndim - 1))
    return direction


def _filter_norms(weight: Tensor) -> Tensor:
    norms: Tensor = weight.flatten(1).norm(dim=1)
    return norms


def loss_surface(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    points: int = 21,
    extent: float = 1.0,
    seed: int = 0,
) -> Surface:
    """Computes the loss over two filter-normalised random directions, in evaluation mode.

    The running statistics of batch normalisation stay as they are. All is done on a copy: the model given is
    not touched, even if the computation is broken off.

    Args:
        model: trained; on the batches' device.
        batches: images N×C×H×W and labels N; read once and kept, so give as many as are to be judged.
        points: on each axis; odd, so that the network itself is in the middle.
        extent: α and β run from minus this to this; 1 is a step as long as the weights.
        seed: decides the directions.

    Raises:
        ValueError: `points` is even or below 3, or `extent` is not above 0.
    """
    if points < 3 or points % 2 == 0 or not extent > 0:
        raise ValueError(f"points={points}, extent={extent}: points must be odd and at least 3, extent above 0")
    device = next(model.parameters()).device
    probe = place(copy.deepcopy(model), device)
    held = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in batches]
    generator = torch.Generator().manual_seed(seed)
    first, second = (filter_normalised_direction(probe, generator) for _ in range(2))
    moved = {name: (p, p.detach().clone()) for name, p in probe.named_parameters() if name in first}
    # Multiples of the whole, for an exact 0 in the middle.
    steps = [extent * (number - points // 2) / (points // 2) for number in range(points)]
    logits = Logits(probe, device, "fp32")
    losses, accuracies = [[[0.0] * points for _ in steps] for _ in range(2)]
    with torch.inference_mode(), tqdm(total=points**2, desc="loss surface", unit=" points") as bar:
        for row, alpha in enumerate(steps):
            for column, beta in enumerate(steps):
                for name, (parameter, centre) in moved.items():
                    parameter.copy_(centre + alpha * first[name] + beta * second[name])
                (found,) = evaluate(logits, held)
                losses[row][column], accuracies[row][column] = found.loss, found.accuracy
                bar.update()
    return Surface(steps, list(steps), losses, accuracies)


def curvature(surface: Surface) -> Curvature:
    """Sums up how convex a surface is; see `Curvature`. Without a point that can be judged both figures are NaN."""
    loss = np.asarray(surface.losses, np.float64)
    loss[~np.isfinite(loss)] = np.nan
    a, b = (values[1] - values[0] for values in (surface.alphas, surface.betas))
    centre = loss[1:-1, 1:-1]
    aa = (loss[2:, 1:-1] - 2 * centre + loss[:-2, 1:-1]) / a**2
    bb = (loss[1:-1, 2:] - 2 * centre + loss[1:-1, :-2]) / b**2
    ab = (loss[2:, 2:] - loss[2:, :-2] - loss[:-2, 2:] + loss[:-2, :-2]) / (4 * a * b)
    # The eigenvalues of a symmetric 2×2 matrix.
    middle, radius = (aa + bb) / 2, np.hypot((aa - bb) / 2, ab)
    least, size = middle - radius, np.abs(middle) + radius
    judged = np.isfinite(least)
    least, size, uncertain = least[judged], size[judged], (ROUNDING * np.abs(centre) / min(a, b) ** 2)[judged]
    if not least.size:
        return Curvature(math.nan, math.nan, 0)
    negative = least < -uncertain
    ratios = np.divide(-least, size, out=np.zeros_like(least), where=negative)
    return Curvature(float(negative.mean()), float(ratios.mean()), int(least.size))


@styled
def draw_surfaces(surfaces: Mapping[str, Surface], file: Path) -> Path:
    """Draws a column for each surface: in relief above, as contours below, all on one logarithmic scale of losses.

    A loss that is not finite is drawn as the largest one of all surfaces.

    Args:
        surfaces: by the title of its column; at least one finite loss.
        file: where the PNG goes.
    """
    from matplotlib.figure import Figure

    heights = {name: _log_losses(surface) for name, surface in surfaces.items()}
    finite = np.concatenate([height[np.isfinite(height)] for height in heights.values()])
    low, high = float(finite.min()), float(finite.max())
    high = max(high, low + 0.01)  # a flat surface has levels too
    figure = Figure(figsize=(4.5 * len(surfaces), 7.6), layout="constrained")
    contours = []
    for column, (name, surface) in enumerate(surfaces.items(), start=1):
        height = np.nan_to_num(heights[name], nan=high, posinf=high)
        _draw_relief(figure, (2, len(surfaces), column), name, surface, height, (low, high))
        contours.append(
            _draw_contours(figure, (2, len(surfaces), len(surfaces) + column), surface, height, (low, high))
        )
    axes, filled = zip(*contours, strict=True)
    bar = figure.colorbar(filled[0], ax=list(axes), label="cross-entropy", format=_as_loss, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    return save_figure(figure, file)


def _log_losses(surface: Surface) -> np.ndarray:
    return np.log10(np.maximum(np.asarray(surface.losses, np.float64), LEAST_LOSS))


def _as_loss(height: float, _: object) -> str:
    return f"{float(f'{10**height:.2g}'):g}"


def _draw_relief(
    figure: "Figure",
    place: tuple[int, int, int],
    name: str,
    surface: Surface,
    height: np.ndarray,
    limits: tuple[float, float],
) -> None:
    axes: Any = figure.add_subplot(*place, projection="3d")
    x, y = np.meshgrid(surface.alphas, surface.betas, indexing="ij")
    axes.plot_surface(x, y, height, cmap="viridis", vmin=limits[0], vmax=limits[1], rcount=100, ccount=100)
    axes.set_zlim(*limits)
    axes.set_box_aspect(None, zoom=0.95)
    axes.zaxis.set_major_formatter(_as_loss)
    axes.tick_params(labelsize=8)
    axes.locator_params(nbins=5)
    axes.set(xlabel="α", ylabel="β", title=name)


def _draw_contours(
    figure: "Figure", place: tuple[int, int, int], surface: Surface, height: np.ndarray, limits: tuple[float, float]
) -> tuple[Any, Any]:
    axes = figure.add_subplot(*place)
    levels = np.linspace(*limits, CONTOURS)
    x, y = np.meshgrid(surface.alphas, surface.betas, indexing="ij")
    filled = axes.contourf(x, y, height, levels, cmap="viridis")
    axes.contour(x, y, height, levels, colors="black", linewidths=0.3)
    axes.plot(0, 0, "+", color="white")
    axes.grid(False)
    axes.set(xlabel="α", ylabel="β", aspect="equal")
    return axes, filled
