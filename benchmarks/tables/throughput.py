"""Images a second."""

from benchmarks.ours import NAMES
from benchmarks.tables.cells import TITLES, Figures, against, beginning, label, spread, verdict


def pipeline(content: Figures) -> list[str]:
    """A single run: the usual pipeline, a plain script, ours."""
    shares_of = ("of the roofline", "of the matrix product")
    columns = ("network", "who", "images/s, whole epochs, median (range)", "ratio to the usual", *shares_of)
    rows = beginning(content, "pipeline", *columns)
    for network, figures in content["networks"].items():
        for name in ("usual", "script", "ours"):
            ours, line = name == "ours", figures["roofline"]
            ratio = against(figures[name]["ratio"], figures["goal"]) if ours else f"{figures[name]['ratio']:.2f}"
            flops, goal = f"{line['of_flops']:.0%}", figures["flops_goal"]
            if goal is not None:
                flops += f" (goal {goal:.0%}: {verdict(line['of_flops'] >= goal)})"
            shares = f"{line['of_roofline']:.0%} | {flops}" if ours else " | "
            title = f"{TITLES[name]}, {figures['precision']}" if ours else TITLES[name]
            rows.append(f"| {NAMES[network]} | {title} | {spread(figures[name])} | {ratio} | {shares} |")
    return rows + _ceilings(content)


def _ceilings(content: Figures) -> list[str]:
    """Returns a sentence on what the processor reached beside each network, where that was measured."""
    ceilings = [
        f"{NAMES[network]} in {figures['precision']} {figures['roofline']['ceiling_gflops']:,.0f} GFLOP/s, "
        f"{figures['roofline']['ceiling_gbytes']:.0f} GB/s"
        for network, figures in content["networks"].items()
        if "ceiling_gflops" in figures["roofline"]
    ]
    said = f"Ceilings, by a large matrix product and a copy of 256 MB after each network: {'; '.join(ceilings)}."
    return ["", said] if ceilings else []


def loading(content: Figures) -> list[str]:
    """Making batches."""
    figures = content["contestants"]
    return [
        *beginning(content, "loading", "who", "images/s, median (range)", "ratio"),
        f"| usual loader | {spread(figures['usual'])} | 1 |",
        f"| **ours** | {spread(figures['ours'])} | {against(figures['ours']['ratio'], 20)} |",
        "",
        f"{content['of_step']:.1%} of a training step of SimpleNN with batch norm (goal: 10 %).",
    ]


def stacks(content: Figures) -> list[str]:
    """Runs as one model and one by one."""
    ratios = ("ratio to the usual", "ratio to one by one")
    rows = beginning(content, "stacks", "network", "who", "model-images/s, whole epochs, median (range)", *ratios)
    for network, figures in content["networks"].items():
        goals = figures["goals"] or (None, None)
        size = f", {figures['stack']} runs" if "stack" in figures else ""
        for name in [one for one in ("usual", "one by one", "stacked") if one in figures]:
            figure = figures[name]
            ratio, own = f"{figure['ratio']:.2f}" if "usual" in figures else "", ""
            if name == "stacked":
                ratio = against(figure["ratio"], goals[0]) if "usual" in figures else ""
                own = against(figure["ratio_to_one_by_one"], goals[1])
            rows.append(f"| {NAMES[network]}{size} | {TITLES[name]} | {spread(figure)} | {ratio} | {own} |")
    return rows


def workers(content: Figures) -> list[str]:
    """One process on all cores against one on each."""
    rows = beginning(content, "workers", "in a process", "one process", "a process a core", "ratio")
    for title, figures in content["networks"].items():
        one, several = (figure for figure in figures.values() if isinstance(figure, dict))
        rows.append(f"| {label(title)} | {one['median']:,.0f} | {several['median']:,.0f} | {several['ratio']:.2f} |")
    return rows


def kernels(content: Figures) -> list[str]:
    """Kernels of our own against PyTorch's, layer by layer."""
    columns = ("layer, forward and backward pass", "PyTorch, µs", "ours, µs", "times as fast")
    rows = beginning(content, "kernels", *columns)
    for layer, one in content["layers"].items():
        theirs, ours = one["PyTorch"]["median"], one["ours"]["median"]
        rows.append(f"| {layer} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.2f} |")
    return rows
