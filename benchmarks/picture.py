"""The picture of docs/performance.md."""

from typing import Any

from benchmarks.ours import NAMES
from cifar_tuning import PROJECT_ROOT

PICTURE = PROJECT_ROOT / "docs" / "images" / "performance.png"


def draw(single: dict[str, Any], stacked: dict[str, Any]) -> None:
    """Bars: how many times the images of the usual pipeline each way trains."""
    from matplotlib import pyplot

    ways = ["usual", "script", "ours", "stacked"]
    labels = [
        "usual pipeline (PIL, DataLoader, fp32)",
        "plain script, data on the device",
        "ours",
        "ours, eight stacked",
    ]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    width = 0.8 / len(ways)
    for index, (way, label) in enumerate(zip(ways, labels, strict=True)):
        where, heights = [], []
        for place, network in enumerate(single):
            source = stacked.get(network, {}) if way == "stacked" else single[network]
            if way in source:
                where.append(place + (index - (len(ways) - 1) / 2) * width)
                heights.append(source[way]["ratio"])
        bars = axes.bar(where, heights, width, label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(single)), [NAMES[network] for network in single])
    axes.set(ylabel="times the usual pipeline's images/s")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(fontsize=8, loc="outside upper center", ncols=2)
    figure.savefig(PICTURE, dpi=120)
    pyplot.close(figure)
