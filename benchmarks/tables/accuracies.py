"""Accuracies, and the time until one is reached."""

from benchmarks.agreement import GOAL
from benchmarks.ours import NAMES
from benchmarks.tables.cells import TITLES, Figures, beginning, verdict, where


def accuracy(content: Figures) -> list[str]:
    """The time until a network reaches an accuracy, under each training loop."""
    columns = ("network", "who", "validation accuracy", "seconds, median (range)", "epochs", "times as fast")
    rows = beginning(content, "accuracy", *columns)
    for network, figures in content["networks"].items():
        for name in ("usual", "script", "ours"):
            one = figures[name]
            seconds = f"{one['median']:.1f} ({one['min']:.1f} to {one['max']:.1f})"
            rows.append(
                f"| {NAMES[network]} | {TITLES[name]} | {figures['target']:.0%} | {seconds} | {one['epochs']:g} "
                f"| {one['ratio']:.2f} |"
            )
    return rows


def targets(content: Figures) -> list[str]:
    """The goals on a GPU that are times."""
    table, resnet = content["table"], content["resnet20"]
    in_time, whole = verdict(table["seconds"] < 10), verdict(resnet["whole"] < 180)
    to_90 = verdict(resnet["to_90"] is not None and resnet["to_90"] < 30)
    best = ", ".join(f"{rate} {accuracy:.4f}" for rate, accuracy in table["best"].items())
    reached = "not reached" if resnet["to_90"] is None else f"{resnet['to_90']:.1f} s"
    return [
        *beginning(content, "targets", "what", "seconds of training", "goal"),
        f"| the lab report's learning rates, six runs of 30 epochs as one stack (best: {best}) "
        f"| {table['seconds']:.1f}, {table['wall']:.0f} with everything around | 10: {in_time} |",
        f"| ResNet-20, fast recipe of {resnet['epochs']} epochs, until 90 % of the validation images are right (at the "
        f"end {resnet['accuracy']:.4f}) | {reached} | 30: {to_90} |",
        f"| ResNet-20, 200 epochs at {resnet['epoch']:.2f} s each, the recipe's median | {resnet['whole']:.0f} | "
        f"180: {whole} |",
    ]


def compared(content: Figures) -> list[str]:
    """The same runs trained in two ways."""
    (a, a_seconds), (b, b_seconds) = content["seconds"].items()
    points, error = content["points_mean"], content["points_standard_error"]
    holds = verdict(abs(points) <= GOAL)
    return [
        f"{where(content, content['benchmark'])} {content['jobs']} runs ({', '.join(content['settings'])}): {a} minus "
        f"{b} {points:+.2f} ± {error:.2f} points (standard error; goal: within {GOAL:g}: {holds}), at most "
        f"{content['points_largest']} in a single one, in {a_seconds:.0f} s against {b_seconds:.0f} s.",
    ]


def techniques(content: Figures) -> list[str]:
    """What each training technique gains, seed by seed."""
    settings = f"; {', '.join(content['settings'])}, {content['seeds']} seeds"
    columns = ("", "validation accuracy", "gain in points, 95 %", "p, corrected", "seconds a run")
    rows = beginning(content, "techniques", *columns, settings=settings)
    for name, one in content["techniques"].items():
        accuracy = f"{one['accuracy']:.4f}" + ("" if one["std"] is None else f" ± {one['std']:.4f}")
        gain = p = ""
        if "points" in one:
            gain = f"{one['points']:+.2f}" + ("" if one["half_width"] is None else f" ± {one['half_width']:.2f}")
            p = "" if one["p"] is None else f"{one['p']:.2g}"
        title = "none of them" if name == "none" else name.replace("_", " ")
        rows.append(f"| {title} | {accuracy} | {gain} | {p} | {one['seconds']:.0f} |")
    return rows
