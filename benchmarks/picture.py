"""The pictures of docs/performance.md and docs/fused.md."""

from typing import Any

from benchmarks.ours import NAMES
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.reporting.drawing import save_figure, styled

IMAGES = PROJECT_ROOT / "docs" / "images"
WAYS = {
    "usual": "usual pipeline (PIL, DataLoader, fp32)",
    "script": "plain script, data on the device",
    "ours": "ours",
    "stacked": "ours, eight stacked",
}


@styled
def draw(single: dict[str, Any], stacked: dict[str, Any]) -> None:
    """Bars: how many times the images of the usual pipeline each way trains; the bars of a network stand together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    ratios = {network: {way: found[way]["ratio"] for way in WAYS if way in found} for network, found in single.items()}
    for network, found in stacked.items():
        if network in ratios and "stacked" in found:
            ratios[network]["stacked"] = found["stacked"]["ratio"]
    width = 0.8 / len(WAYS)
    for way, label in WAYS.items():
        where = [
            place + (list(there).index(way) - (len(there) - 1) / 2) * width
            for place, there in enumerate(ratios.values())
            if way in there
        ]
        bars = axes.bar(where, [found[way] for found in ratios.values() if way in found], width, label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(ratios)), [NAMES[network] for network in ratios])
    axes.set(ylabel="times the usual pipeline's images/s")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(WAYS))
    save_figure(figure, IMAGES / "performance.png")


@styled
def draw_sizes(figures: dict[str, Any]) -> None:
    """Lines: model-images per second by the number of runs in one stack, the median and the range of the repeats."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for network, by_size in figures.items():
        sizes = [int(size) for size in by_size]
        middle = [one["median"] for one in by_size.values()]
        spread = [[m - one["min"], one["max"] - m] for m, one in zip(middle, by_size.values(), strict=True)]
        axes.errorbar(sizes, middle, yerr=list(zip(*spread, strict=True)), marker="o", capsize=3)
        axes.annotate(NAMES[network], (sizes[-1], middle[-1]), (8, 0), textcoords="offset points", va="center")
        axes.set_xticks(sizes)
    axes.set(xlabel="runs in one stack", ylabel="model-images/s", ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    save_figure(figure, IMAGES / "stack_sizes.png")
