"""Statements that are judged by counting operations, timing layers or looking at a surface rather than by many runs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cifar_tuning.lab.measure import SEPARABLE, STAGES, SURFACES
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import FALSE, HOLDS, MISSING, PARTLY, SINGLE
from cifar_tuning.lab.surface import Surface, curvature
from cifar_tuning.lab.verdicts import Verdict

NINE = 9.0
# Nearer to nine than this many times is "approximately".
ABOUT = 1.0


def separable(results: Results) -> Verdict:
    """Claim 1.8: is a depthwise separable layer nine times faster? Judged by the time, not by the count."""
    name, says = (
        "1.8 separable",
        "True: a ResNet's 3×3 layers get about nine times faster when made depthwise separable",
    )
    measured = results.measured(SEPARABLE)
    if measured is None:
        return Verdict(name, says, MISSING, [], 0, ["claim_separable"])
    # The first layer's three input channels are no case of 16 or more.
    pairs = layer_speedups(measured)[1:]
    counted, timed = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
    totals, network = measured["totals"], measured["times"][-1]["speedup"]
    whole = totals["regular"]["macs"] / totals["separable"]["macs"]
    evidence = [
        f"ResNet-20's layers need {min(counted):.1f} to {max(counted):.1f} times fewer MACs and are "
        f"{min(timed):.1f} to {max(timed):.1f} times as fast, {statistics.median(timed):.1f} in the median "
        f"({measured['machine']})",
        "A separable layer with N output channels needs 1/N + 1/9 of the MACs: 16, 32 and 64 channels give 5.8, 7.0 "
        "and 7.9 times fewer, and 9 is the limit for large N",
        f"The whole network: {whole:.1f} times fewer MACs, {network:.1f} times as fast. The "
        "depthwise part has few operations for each number that it reads and writes: memory decides its time",
    ]
    outcome = HOLDS if statistics.median(timed) > NINE - ABOUT else FALSE
    return Verdict(name, says, outcome, evidence, 0, ["claim_separable"])


def layer_speedups(measured: Any) -> list[tuple[str, float, float]]:
    """Returns each 3×3 layer with how many times fewer MACs and how many times faster its separable form is."""
    times = {entry["name"]: entry["speedup"] for entry in measured["times"]}
    return [(layer["name"], 1 / layer["ratio"], times[layer["name"]]) for layer in measured["layers"]]


def squeezenet(results: Results) -> Verdict:
    """Claim 1.9: are most of SqueezeNet's operations in its later half of stages?"""
    name, says = "1.9 SqueezeNet", "True: SqueezeNet puts most of its computations in the later stages"
    measured = results.measured(STAGES)
    if measured is None:
        return Verdict(name, says, MISSING, [])
    later = {network: _share_of_second_half(stages) for network, stages in measured.items()}
    totals = {network: sum(stage["parameters"] for stage in stages) / 1e6 for network, stages in measured.items()}
    ours, alexnet = later["squeezenet1_0"], later["alexnet"]
    evidence = [
        f"{ours:.1%} of SqueezeNet's MACs are in the second half of its ten stages, {alexnet:.1%} of AlexNet's in its "
        "second half",
        f"It has {totals['squeezenet1_0']:.2f} million parameters, AlexNet {totals['alexnet']:.1f}. Late "
        "downsampling keeps the maps large, which makes the early layers expensive as well",
    ]
    # Half of it within two hundredths is neither most nor least.
    outcome = HOLDS if ours > 0.52 else FALSE if ours < 0.48 else PARTLY
    return Verdict(name, says, outcome, evidence)


def _share_of_second_half(stages: Sequence[Mapping[str, Any]]) -> float:
    """Returns the share of the MACs, 0 to 1: SqueezeNet's behind fire5, AlexNet's behind conv4."""
    macs = [stage["macs"] for stage in stages]
    return float(sum(macs[len(macs) // 2 :]) / sum(macs))


def shortcuts(results: Results) -> Verdict:
    """Claim 1.10: is the loss surface smoother with shortcuts? Figures of one pair of networks, which are no test."""
    name, says = "1.10 shortcuts", "True: shortcuts make the loss surface smoother"
    surfaces = {kind: load_surface(results, file) for kind, file in SURFACES.items()}
    found = {kind: curvature(surface) for kind, surface in surfaces.items() if surface is not None}
    if len(found) < len(SURFACES):
        return Verdict(name, says, MISSING, [], 0, ["claim_shortcut"])
    a, plain = found["A"], found["none"]
    evidence = [
        f"{a.nonconvex_share:.0%} of the slice is not convex with shortcuts, {plain.nonconvex_share:.0%} without; mean "
        f"negative share of the curvature {a.negative_ratio:.3f} and {plain.negative_ratio:.3f}",
        "This is one pair of networks and one pair of directions. At 20 layers Li et al. (2018) found both kinds "
        "smooth; the difference grows with the depth",
    ]
    return Verdict(name, says, SINGLE, evidence, 0, ["claim_shortcut"])


def load_surface(results: Results, name: str) -> Surface | None:
    """Returns a measured loss surface, or None if it is not there."""
    file = results.scale.data / f"{name}.json"
    return Surface.load(file) if file.is_file() else None
