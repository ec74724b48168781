"""What becomes of every layer's weights under L1 and L2: measured, judged (as in claim 1.6), as a table, drawn."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import FALSE, HOLDS, MISSING
from cifar_tuning.lab.tables import STRENGTH, describe, line, spell_value
from cifar_tuning.lab.verdicts import Contest, Figure, Verdict, judge
from cifar_tuning.reporting.weights import (
    ALL_LAYERS,
    LayerHistograms,
    draw_histograms,
    layer_weights,
    make_histograms,
    weight_table,
)

WEIGHTS, EXPERIMENT = "weights", "lab2_l1"
# SimpleNN's layers with the report's numbers of weights.
COUNTS = {"conv1": 600, "conv2": 1152, "fc1": 69120, "fc2": 10080, "fc3": 840}
USUAL = "0.0001"

# By configuration and seed.
Checkpoints = dict[tuple[str, int], Path]


def measure_weights(checkpoints: Checkpoints) -> dict[str, Any]:
    """Statistics of every run's weights, and histograms of the first seed's, a layer's all over the same bins."""
    weights = {run: layer_weights(path) for run, path in checkpoints.items()}
    statistics = []
    for (configuration, seed), layers in weights.items():
        for row in weight_table({"": layers}):
            figures = asdict(row)
            del figures["checkpoint"]
            statistics.append({"configuration": configuration, "seed": seed, **figures})
    first = min(seed for _, seed in weights)
    histograms = make_histograms(
        {configuration: one for (configuration, seed), one in weights.items() if seed == first}
    )
    return {
        "statistics": statistics,
        "seed": first,
        "histograms": {layer: asdict(found) for layer, found in histograms.items()},
    }


def sparsity(results: Results) -> Verdict:
    """Claim 1.6: does L1 bring more weights next to zero than L2?"""
    contests = [
        _contest(strength, ALL_LAYERS, "near_zero", "share of weights under 1e-3", "points")
        for strength in (USUAL, "0.001")
    ]
    says = "True: L1 makes the weights sparser than L2 (share of weights under 1e-3)"
    return judge(results, "1.6 sparsity", says, contests)


def width(results: Results) -> Verdict:
    """Are L2's weights spread wider than L1's, in every layer?"""
    contests = [_contest(USUAL, layer, "std", f"standard deviation in {layer}", l1_first=False) for layer in COUNTS]
    return judge(results, "width", "With L2 the weights spread wider than with L1 (both 1e-4)", contests)


def normality(results: Results) -> Verdict:
    """Are L2's weights nearer to a normal distribution, in the layers that the report names?"""
    contests = [_contest(USUAL, layer, "kurtosis", f"excess kurtosis in {layer}") for layer in ("conv2", "fc1", "fc2")]
    says = "The weights of conv2, fc1 and fc2 are nearer to normal with L2 than with L1 (excess kurtosis; both 1e-4)"
    return judge(results, "normality", says, contests)


def weight_counts(results: Results) -> Verdict:
    """Have SimpleNN's layers as many weights as the report reckons?"""
    listed = ", ".join(f"{count:,}" for count in COUNTS.values())
    says = f"SimpleNN's layers have {listed} weights"
    measured = results.measured(WEIGHTS)
    if measured is None:
        return Verdict("weights", says, MISSING, [], 0, [EXPERIMENT])
    counts = {row["layer"]: row["count"] for row in measured["statistics"]}
    found = {layer: counts.get(layer, 0) for layer in COUNTS}
    evidence = f"The trained networks have {', '.join(f'{count:,}' for count in found.values())}"
    return Verdict("weights", says, HOLDS if found == COUNTS else FALSE, [evidence], 0, [EXPERIMENT])


def _contest(strength: str, layer: str, name: str, quantity: str, unit: str = "", l1_first: bool = True) -> Contest:
    kinds = ("l1", "l2") if l1_first else ("l2", "l1")
    a, b = (f"regularizer={kind} {STRENGTH}={strength}" for kind in kinds)
    a_name, b_name = f"{kinds[0].upper()} of {spell_value(strength, STRENGTH)}", kinds[1].upper()
    return Contest(EXPERIMENT, a, b, a_name, b_name, _figure(layer, name), quantity, unit)


def _figure(layer: str, name: str) -> Figure:
    def figure(results: Results, experiment: str, configuration: str) -> Mapping[int, float]:
        rows = (results.measured(WEIGHTS) or {"statistics": []})["statistics"]
        found = {
            row["seed"]: row.get(name) for row in rows if (row["layer"], row["configuration"]) == (layer, configuration)
        }
        return {seed: value for seed, value in found.items() if value is not None}

    return figure


def weights_table(results: Results) -> list[str]:
    """Returns the share of weights near zero and the kurtosis by layer, means over the seeds; nothing if unmeasured."""
    measured = results.measured(WEIGHTS)
    if measured is None:
        return []
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in measured["statistics"]:
        found.setdefault((row["layer"], row["configuration"]), []).append((row["near_zero"], row["kurtosis"] or 0.0))
    layers = list(dict.fromkeys(layer for layer, _ in found))
    names = [name for name in results.configurations(EXPERIMENT) if (layers[0], name) in found]
    lines = [
        "Share of weights under 1e-3 in size, and excess kurtosis in brackets (0: normal, 3: Laplace's distribution):",
        "",
        line(["layer", *map(describe, names)]),
        "|" + "---|" * (1 + len(names)),
    ]
    for layer in layers:
        cells = [tuple(map(mean, zip(*found[layer, name], strict=True))) for name in names if (layer, name) in found]
        lines.append(line([layer, *(f"{share:.1%} ({kurtosis:.1f})" for share, kurtosis in cells)]))
    return [*lines, ""]


def draw_weights(results: Results, file: Path) -> Path | None:
    """Draws a histogram of each layer's weights: a row a layer, a column a configuration."""
    measured = results.measured(WEIGHTS)
    if measured is None:
        return None
    layers = {layer: LayerHistograms(**found) for layer, found in measured["histograms"].items()}
    drawn = {name for histograms in layers.values() for name in histograms.counts}
    titles = {name: describe(name) for name in results.configurations(EXPERIMENT) if name in drawn}
    return draw_histograms(layers, titles, file, log=True)
