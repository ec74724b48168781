"""The page of results: Markdown, made from the files beside it. Nothing on it is written by hand but the notes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from cifar_tuning.files import write_text
from cifar_tuning.lab.claims import claims
from cifar_tuning.lab.conclusions import conclusions
from cifar_tuning.lab.experiments import CLAIMS, EXPERIMENTS, REPORT
from cifar_tuning.lab.pictures import Picture
from cifar_tuning.lab.published import offsets, order, shortfalls
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import MISSING
from cifar_tuning.lab.tables import table, untrained
from cifar_tuning.lab.texts import HOW, INTRODUCTION, QUICK, SECTIONS, Section
from cifar_tuning.lab.verdicts import Verdict
from cifar_tuning.lab.weights import weights_table
from cifar_tuning.lab.winners import RECIPE, recipe_lines
from cifar_tuning.text import counted

NOTES = "notes.md"


def write_page(results: Results, pictures: Mapping[str, list[Picture]]) -> None:
    """Writes the page, all or nothing."""
    found, statements = conclusions(results), claims(results)
    lines = [
        *_introduction(results),
        *_summary(results, "The report's conclusions", found),
        *_summary(results, "The ten statements of its first section", statements),
        *_picture_lines(results, pictures.get("", [])),
        *([" ".join(sentences), ""] if not results.scale.quick and (sentences := offsets(results)) else []),
        *_order(results, found),
        "## The report's tables",
        "",
    ]
    verdicts = _by_experiment([*found, *statements])
    for section in SECTIONS:
        if section.experiment == CLAIMS[0]:
            lines += ["## The ten statements", "", *_statements(results, statements)]
        lines += _section(results, section, pictures.get(section.experiment, []), verdicts)
    lines += _commands(results)
    notes = results.scale.data / NOTES
    if notes.is_file():
        lines += ["", notes.read_text().rstrip()]
    write_text(results.scale.page, "\n".join(lines).rstrip() + "\n")


def _introduction(results: Results) -> list[str]:
    runs = results.runs
    there, wanted = results.count()
    more = f", and {len(runs) - there} more than the tables ask for, such as longer ones" if len(runs) > there else ""
    machines = Counter(", ".join(dict.fromkeys((run.machine, run.precision))) for run in runs)
    where = "; ".join(f"{name} ({counted(count, 'run')})" for name, count in machines.most_common())
    folder = results.scale.data.name
    files = f"`runs.csv`, `curves.csv` and the measurements in [{folder}/]({folder}/)"
    lines = [
        QUICK if results.scale.quick else INTRODUCTION,
        f"{there} of {wanted} runs are there{more}. {'Trained on ' + where + '.' if where else ''}".rstrip(),
        f"This page is made by `make results` from {files}.",
    ]
    if there < wanted:
        lines += [
            "",
            f"**{wanted - there} runs are missing**; the sections say which, the commands at the end train them.",
        ]
    return [*lines, ""]


def _summary(results: Results, heading: str, verdicts: Sequence[Verdict]) -> list[str]:
    lines = [f"## {heading}", "", "| the report says | verdict | what decided |", "|---|---|---|"]
    for verdict in verdicts:
        evidence = verdict.evidence[verdict.decisive] if verdict.evidence else _to_train(results, verdict)
        coverage = f"; {verdict.coverage}" if verdict.coverage else ""
        lines.append(f"| {verdict.says} | **{verdict.outcome}** | {_in_cell(evidence + coverage)} |")
    return [*lines, ""]


def _to_train(results: Results, verdict: Verdict) -> str:
    if not verdict.experiments:
        return f"`{results.scale.make}`"
    return f"`{results.scale.make} ONLY={','.join(verdict.experiments)}`"


def _order(results: Results, verdicts: Sequence[Verdict]) -> list[str]:
    lines = ["## The order of the published tables", ""]
    for verdict in (verdict for verdict in verdicts if verdict.ordered):
        evidence = ". ".join(verdict.evidence) or _to_train(results, verdict)
        lines.append(f"- {verdict.says}: **{verdict.outcome}**. {evidence}.")
    return [*lines, ""]


def _statements(results: Results, verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    for verdict in verdicts:
        evidence = ". ".join(verdict.evidence) or _to_train(results, verdict)
        lines.append(f"- **{verdict.name}.** {verdict.says}: **{verdict.outcome}**. {evidence}.")
    return [*lines, ""]


def _section(
    results: Results, section: Section, pictures: Sequence[Picture], verdicts: Mapping[str, list[Verdict]]
) -> list[str]:
    name = section.experiment
    lines = [f"### {section.heading}", "", f"{section.text} `python train.py -m experiment={name}`", ""]
    lines += [*table(results, name), ""]
    missing, all_runs = results.missing(name), results.experiment(name).runs
    if missing:
        there = f"{len(all_runs) - len(missing)} of {len(all_runs)} runs are there"
        lines += [
            f"**{name} is {'incomplete' if len(missing) < len(all_runs) else 'missing'}**: {there}; "
            f"`{results.scale.make} ONLY={name}` trains the rest.",
            "",
        ]
    sentences = untrained(results, name)
    if not results.scale.quick:
        sentences += [*shortfalls(results, name, section.published_epochs), *order(results, name)]
    if name in REPORT:
        sentences += [
            f"**{v.outcome}**: {v.says}. {'. '.join(v.evidence)}."
            for v in verdicts.get(name, [])
            if v.outcome != MISSING
        ]
    if name == RECIPE:
        sentences += recipe_lines(results)
    lines += [f"- {sentence}" for sentence in sentences]
    lines += [""] if sentences else []
    if name == "lab2_l1":
        lines += weights_table(results)
    return [*lines, *_picture_lines(results, pictures)]


def _picture_lines(results: Results, pictures: Sequence[Picture]) -> list[str]:
    folder = os.path.relpath(results.scale.pictures, results.scale.page.parent)
    lines = []
    for picture in pictures:
        lines += [f"![{picture.caption}]({folder}/{picture.name}.png)", "", f"*{picture.caption}.*", ""]
    return lines


def _by_experiment(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Returns the verdicts by the section that they stand in, which is the first of their experiments'."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        for experiment in verdict.experiments[:1]:
            found.setdefault(experiment, []).append(verdict)
    return found


def _commands(results: Results) -> list[str]:
    lines = [HOW, "", "| experiment | runs | minutes | command |", "|---|---|---|---|"]
    for name in EXPERIMENTS:
        wanted, missing = len(results.experiment(name).runs), len(results.missing(name))
        # Runs of one stack have the same epochs' seconds.
        seconds = sum({run.seconds for run in results.runs if run.experiment == name})
        command = "python " + " ".join(results.scale.command(name))
        more = f", {outside} more" if (outside := len(results.outside(name))) else ""
        lines.append(f"| {name} | {wanted - missing} of {wanted}{more} | {seconds / 60:.0f} | `{command}` |")
    return lines


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")
