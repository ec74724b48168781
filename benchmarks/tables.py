"""Each benchmark's figures as lines of Markdown."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import agreement, start
from benchmarks.ours import NAMES
from cifar_tuning.reporting.statistics import compare
from cifar_tuning.text import counted

# With fewer rounds than that a median says little.
FEW = 5
TITLES = {
    "usual": "usual pipeline",
    "script": "plain script",
    "ours": "**ours**",
    "one by one": "ours, one by one",
    "stacked": "**ours, stacked**",
}


def _where(content: Mapping[str, Any], name: str) -> str:
    machine = content["machine"]
    processor = machine["gpu"] or f"{machine['processor']}, {counted(machine['threads'], 'thread')}"
    versions = f"PyTorch {machine['versions']['torch']}, {_commits(content)}"
    measured = [content, *content.get("networks", {}).values()]
    rounds = min((one["repeats"] for one in measured if isinstance(one.get("repeats"), int)), default=FEW)
    few = f"; only {rounds} rounds" if rounds < FEW else ""
    few += f" ({content['note']})" if "note" in content else ""
    return f"`python -m benchmarks {name}` on {processor}, {versions}{few}:"


def _commits(content: Mapping[str, Any]) -> str:
    """Returns which commit was measured; a network that was measured before keeps its own."""
    networks: dict[str, list[str]] = {}
    for network, one in content.get("networks", {}).items():
        networks.setdefault(one.get("commit", content["machine"]["commit"]), []).append(_label(network))
    if len(networks) < 2:
        return f"commit {next(iter(networks), content['machine']['commit'])}"
    return "commits " + ", ".join(f"{commit} ({'; '.join(labels)})" for commit, labels in networks.items())


def _label(network: str) -> str:
    """Returns the name of a network, or of `network, size` stacked."""
    name, _, size = network.partition(", ")
    return NAMES[name] + (f", {size} stacked" if size not in ("", "1") else "")


def _spread(figure: Mapping[str, float]) -> str:
    return f"{figure['median']:,.0f} ({figure['min']:,.0f} to {figure['max']:,.0f})"


def _against(ratio: float, goal: float | None) -> str:
    if goal is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (goal {goal:g}: {'holds' if ratio >= goal else '**missed**'})"


def _pipeline(content: dict[str, Any]) -> list[str]:
    rows = [
        *(_where(content, "pipeline"), ""),
        "| network | who | images/s, whole epochs, median (range) | ratio to the usual | of the roofline "
        "| of the matrix product |",
        "|---|---|---|---|---|---|",
    ]
    for network, figures in content["networks"].items():
        for name in ("usual", "script", "ours"):
            ours, line = name == "ours", figures["roofline"]
            ratio = _against(figures[name]["ratio"], figures["goal"]) if ours else f"{figures[name]['ratio']:.2f}"
            flops, goal = f"{line['of_flops']:.0%}", figures["flops_goal"]
            if goal is not None:
                flops += f" (goal {goal:.0%}: {'holds' if line['of_flops'] >= goal else '**missed**'})"
            shares = f"{line['of_roofline']:.0%} | {flops}" if ours else " | "
            title = f"{TITLES[name]}, {figures['precision']}" if ours else TITLES[name]
            rows.append(f"| {NAMES[network]} | {title} | {_spread(figures[name])} | {ratio} | {shares} |")
    ceilings = [
        f"{NAMES[network]} in {figures['precision']} {figures['roofline']['ceiling_gflops']:,.0f} GFLOP/s, "
        f"{figures['roofline']['ceiling_gbytes']:.0f} GB/s"
        for network, figures in content["networks"].items()
        if "ceiling_gflops" in figures["roofline"]
    ]
    if ceilings:
        rows += [
            "",
            f"Ceilings, by a large matrix product and a copy of 256 MB after each network: {'; '.join(ceilings)}.",
        ]
    return rows


def _loading(content: dict[str, Any]) -> list[str]:
    figures = content["contestants"]
    return [
        *(_where(content, "loading"), ""),
        "| who | images/s, median (range) | ratio |",
        "|---|---|---|",
        f"| usual loader | {_spread(figures['usual'])} | 1 |",
        f"| **ours** | {_spread(figures['ours'])} | {_against(figures['ours']['ratio'], 20)} |",
        "",
        f"{content['of_step']:.1%} of a training step of SimpleNN with batch norm (goal: 10 %).",
    ]


def _start(content: dict[str, Any]) -> list[str]:
    seconds, memory = content["median"], content["peak_mb"]
    holds = "holds" if content["over_imports"] <= 1 else "**missed**"
    processes = {
        start.IMPORTS: "`python -c 'import torch, mlflow'`",
        start.JOB: f"`python train.py {start.SHORT_JOB}`",
        start.WITH_MODEL: f"the same with `{start.MODEL_TOO}`",
        start.LOADED: "the usual pipeline, ten batches (without its workers)",
        start.HELP: "`python train.py --help`",
    }
    return [
        *(_where(content, "start"), ""),
        "| process | seconds, median | peak memory |",
        "|---|---|---|",
        *(
            f"| {said} | {seconds[name]:.2f} | {memory[name]:,} MB |"
            for name, said in processes.items()
            if name in seconds
        ),
        "",
        f"The job takes {content['over_imports']:.2f} s more than the imports alone (goal 1.0: {holds}).",
    ]


def _tracking(content: dict[str, Any]) -> list[str]:
    rows = [*(_where(content, "tracking"), ""), "| call | median | nine in ten under |", "|---|---|---|"]
    for name, figure in content["calls"].items():
        rows.append(f"| `{name}` | {figure['median_ms']:.1f} ms | {figure['ninth_decile_ms']:.1f} ms |")
    for network, milliseconds in content.get("checkpoints_ms", {}).items():
        rows.append(f"| both checkpoints of an epoch, {NAMES[network]} | {milliseconds:.1f} ms | |")
    return rows


def _overhead(content: dict[str, Any]) -> list[str]:
    holds = "holds" if content["ms_per_trial"] < 150 else "**missed**"
    return [
        f"{_where(content, 'overhead')} {content['trials']} trials of a millisecond, each with a run in MLflow, "
        f"{content['workers']} workers on one SQLite file. {content['complete']} complete, all {content['different']} "
        f"different, **{content['ms_per_trial']:.0f} ms a trial** (goal 150: {holds}).",
    ]


def _stacks(content: dict[str, Any]) -> list[str]:
    rows = [
        *(_where(content, "stacks"), ""),
        "| network | who | model-images/s, whole epochs, median (range) | ratio to the usual | ratio to one by one |",
        "|---|---|---|---|---|",
    ]
    for network, figures in content["networks"].items():
        goals = figures["goals"] or (None, None)
        size = f", {figures['stack']} runs" if "stack" in figures else ""
        for name in [one for one in ("usual", "one by one", "stacked") if one in figures]:
            figure = figures[name]
            ratio, own = f"{figure['ratio']:.2f}" if "usual" in figures else "", ""
            if name == "stacked":
                ratio = _against(figure["ratio"], goals[0]) if "usual" in figures else ""
                own = _against(figure["ratio_to_one_by_one"], goals[1])
            rows.append(f"| {NAMES[network]}{size} | {TITLES[name]} | {_spread(figure)} | {ratio} | {own} |")
    return rows


def _kernels(content: dict[str, Any]) -> list[str]:
    rows = [
        *(_where(content, "kernels"), ""),
        "| layer, forward and backward pass | PyTorch, µs | ours, µs | times as fast |",
        "|---|---|---|---|",
    ]
    for layer, one in content["layers"].items():
        theirs, ours = one["PyTorch"]["median"], one["ours"]["median"]
        rows.append(f"| {layer} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.2f} |")
    return rows


def _targets(content: dict[str, Any]) -> list[str]:
    table, resnet = content["table"], content["resnet20"]
    holds = ["holds" if ok else "**missed**" for ok in (table["seconds"] < 10, resnet["whole"] < 180)]
    holds.append("holds" if resnet["to_90"] is not None and resnet["to_90"] < 30 else "**missed**")
    best = ", ".join(f"{rate} {accuracy:.4f}" for rate, accuracy in table["best"].items())
    reached = "not reached" if resnet["to_90"] is None else f"{resnet['to_90']:.1f} s"
    return [
        *(_where(content, "targets"), "", "| what | seconds of training | goal |", "|---|---|---|"),
        f"| the lab report's learning rates, six runs of 30 epochs as one stack (best: {best}) "
        f"| {table['seconds']:.1f}, {table['wall']:.0f} with everything around | 10: {holds[0]} |",
        f"| ResNet-20, fast recipe of {resnet['epochs']} epochs, until 90 % of the validation images are right (at the "
        f"end {resnet['accuracy']:.4f}) | {reached} | 30: {holds[2]} |",
        f"| ResNet-20, 200 epochs at {resnet['epoch']:.2f} s each, the recipe's median | {resnet['whole']:.0f} | "
        f"180: {holds[1]} |",
    ]


def _pruning(content: dict[str, Any]) -> list[str]:
    images = content["train_limit"] or "all 45,000"
    lengths = f"{content['trials']} trials of up to {content['epochs']} epochs"
    rows = [
        f"{_where(content, 'pruning')[:-1]}, {lengths}, {images} training images:",
        "",
        "| sampler seed | epochs, stock | epochs, study | fewer | best, stock | best, study | difference, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in content["rounds"]:
        if not {"stock", "study"} <= one.keys():
            continue
        stock, ours = one["stock"], one["study"]
        rows.append(
            f"| {one['seed']} | {stock['epochs']} | {ours['epochs']} | {stock['epochs'] / ours['epochs']:.2f}x | "
            f"{stock['best']:.4f} | {ours['best']:.4f} | {100 * (ours['best'] - stock['best']):+.2f} |"
        )
    if summary := content["summary"]:
        gained, holds = points_gained(content["rounds"])
        rows.append(f"| mean | | | {_against(summary['times_fewer_epochs'], 2)} | | | {gained} (goal −0.5: {holds}) |")
    return rows


def points_gained(rounds: Sequence[Mapping[str, Any]], goal: float = -0.5) -> tuple[str, str]:
    """Returns what pruning does to the best accuracy, with its interval, and whether that is above the goal.

    Args:
        rounds: studies of one sampler seed, pruned and not; those that lack one of them do not count.
        goal: in points.
    """
    whole = [one for one in rounds if {"stock", "study"} <= one.keys()]
    ours, stock = ({one["seed"]: one[who]["best"] for one in whole} for who in ("study", "stock"))
    found = compare(ours, stock)
    points, half = 100 * found.difference, 100 * (found.half_width or math.inf)
    interval = f" ± {half:.2f}, 95 %" if math.isfinite(half) else ""
    holds = "holds" if points - half >= goal else "in the mean, not beyond chance" if points >= goal else "**missed**"
    return f"{points:+.2f}{interval}", holds


def _simulated(content: dict[str, Any]) -> list[str]:
    rows = [
        f"{_where(content, 'simulated')[:-1]}: {content['studies']} studies with each pruner:",
        "",
        "| trials at a time | pruner | epochs, fewer | best, points from the stock plugin's |",
        "|---|---|---|---|",
    ]
    for at_a_time, pruners in ((1, content["pruners"]), (content["at_a_time"], content["pruners_side_by_side"])):
        for name, one in pruners.items():
            points = f"{one['points']:+.2f} ± {one['standard_error']:.2f}"
            rows.append(f"| {at_a_time} | {name} | {one['times_fewer_epochs']:.2f}x | {points} |")
    return rows


def _workers(content: dict[str, Any]) -> list[str]:
    rows = [
        *(_where(content, "workers"), ""),
        "| in a process | one process | a process a core | ratio |",
        "|---|---|---|---|",
    ]
    for title, figures in content["networks"].items():
        one, several = (figure for figure in figures.values() if isinstance(figure, dict))
        rows.append(f"| {_label(title)} | {one['median']:,.0f} | {several['median']:,.0f} | {several['ratio']:.2f} |")
    return rows


def _waiting(content: dict[str, Any]) -> list[str]:
    seconds = content["seconds"]
    ratio = content["ratio"]
    return [
        *(_where(content, "waiting"), ""),
        f"| | {' | '.join(f'order {i}' for i in range(len(seconds['stock'])))} |",
        f"|---|{'---|' * len(seconds['stock'])}",
        f"| stock plugin, joblib, two jobs at a time | {' | '.join(f'{s:.1f} s' for s in seconds['stock'])} |",
        f"| two workers | {' | '.join(f'{s:.1f} s' for s in seconds['study'])} |",
        "",
        f"{content['trials']} trials in {ratio:.2f} of the time "
        f"(goal 0.75: {'holds' if ratio <= 0.75 else '**missed**'}).",
    ]


def _accuracy(content: dict[str, Any]) -> list[str]:
    rows = [
        *(_where(content, "accuracy"), ""),
        "| network | who | validation accuracy | seconds, median (range) | epochs | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for network, figures in content["networks"].items():
        for name in ("usual", "script", "ours"):
            one = figures[name]
            seconds = f"{one['median']:.1f} ({one['min']:.1f} to {one['max']:.1f})"
            rows.append(
                f"| {NAMES[network]} | {TITLES[name]} | {figures['target']:.0%} | {seconds} | {one['epochs']:g} "
                f"| {one['ratio']:.2f} |"
            )
    return rows


def _compared(content: dict[str, Any]) -> list[str]:
    (a, a_seconds), (b, b_seconds) = content["seconds"].items()
    points, error = content["points_mean"], content["points_standard_error"]
    holds = "holds" if abs(points) <= agreement.GOAL else "**missed**"
    return [
        f"{_where(content, content['benchmark'])} {content['jobs']} runs ({', '.join(content['settings'])}): {a} minus "
        f"{b} {points:+.2f} ± {error:.2f} points (standard error; goal: within {agreement.GOAL:g}: {holds}), at most "
        f"{content['points_largest']} in a single one, in {a_seconds:.0f} s against {b_seconds:.0f} s.",
    ]


def _techniques(content: dict[str, Any]) -> list[str]:
    rows = [
        f"{_where(content, 'techniques')[:-1]}; {', '.join(content['settings'])}, {content['seeds']} seeds:",
        *(
            "",
            "| | validation accuracy | gain in points, 95 % | p, corrected | seconds a run |",
            "|---|---|---|---|---|",
        ),
    ]
    for name, one in content["techniques"].items():
        accuracy = f"{one['accuracy']:.4f}" + ("" if one["std"] is None else f" ± {one['std']:.4f}")
        gain = p = ""
        if "points" in one:
            gain = f"{one['points']:+.2f}" + ("" if one["half_width"] is None else f" ± {one['half_width']:.2f}")
            p = "" if one["p"] is None else f"{one['p']:.2g}"
        title = "none of them" if name == "none" else name.replace("_", " ")
        rows.append(f"| {title} | {accuracy} | {gain} | {p} | {one['seconds']:.0f} |")
    return rows


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "pipeline": _pipeline,
    "loading": _loading,
    "start": _start,
    "tracking": _tracking,
    "overhead": _overhead,
    "stacks": _stacks,
    "targets": _targets,
    "kernels": _kernels,
    "pruning": _pruning,
    "simulated": _simulated,
    "workers": _workers,
    "waiting": _waiting,
    "accuracy": _accuracy,
    "agreement": _compared,
    "precision": _compared,
    "techniques": _techniques,
}
