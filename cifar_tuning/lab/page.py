"""The page of results: Markdown, made from the files beside it. Nothing on it is written by hand but the notes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from cifar_tuning.files import write_text
from cifar_tuning.lab.claims import claims
from cifar_tuning.lab.conclusions import conclusions
from cifar_tuning.lab.experiments import CLAIMS, EXPERIMENTS, REPORT
from cifar_tuning.lab.noise import Checked, check, sentences
from cifar_tuning.lab.pictures import Picture
from cifar_tuning.lab.published import offsets, order, shortfalls
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import MISSING
from cifar_tuning.lab.tables import line, table, untrained
from cifar_tuning.lab.texts import HOW, INTRODUCTION, NOT_JUDGED, QUICK, SECTIONS, STATEMENTS, Section
from cifar_tuning.lab.verdicts import Verdict
from cifar_tuning.lab.weights import weights_table
from cifar_tuning.lab.winners import RECIPE, recipe_lines
from cifar_tuning.reporting.wording import p_in_words
from cifar_tuning.text import counted

NOTES = "notes.md"


def write_page(results: Results, pictures: Mapping[str, list[Picture]]) -> None:
    """Writes the page, all or nothing."""
    found, statements = check(results, conclusions, claims)
    lines = [
        *_introduction(results, [found, statements]),
        *_summary(results, "The report's conclusions", found),
        *_summary(results, "The ten statements of the report's first section", statements, STATEMENTS),
        *([] if results.scale.quick else [NOT_JUDGED]),
        *_picture_lines(results, pictures.get("", [])),
        *([" ".join(together), ""] if not results.scale.quick and (together := offsets(results)) else []),
        "## The order of the published tables",
        "",
        *_statements(results, [one for one in found if one.verdict.ordered], named=False),
        "## The report's tables",
        "",
    ]
    verdicts = _by_experiment([*found, *statements])
    for section in SECTIONS:
        if section.experiment == CLAIMS[0]:
            lines += ["## The ten statements", "", *_statements(results, statements, named=True)]
        lines += _section(results, section, pictures.get(section.experiment, []), verdicts)
    lines += _commands(results)
    notes = results.scale.data / NOTES
    if notes.is_file():
        lines += ["", notes.read_text(encoding="utf-8").rstrip()]
    write_text(results.scale.page, "\n".join(lines).rstrip() + "\n")


def _introduction(results: Results, groups: Sequence[Sequence[Checked]]) -> list[str]:
    runs = results.runs
    there, wanted = results.count()
    more = f", and {len(runs) - there} more than the tables ask for, such as longer ones" if len(runs) > there else ""
    machines = Counter(", ".join(dict.fromkeys((run.machine, run.precision))) for run in runs)
    where = "; ".join(f"{name} ({counted(count, 'run')})" for name, count in machines.most_common())
    folder = results.scale.data.name
    files = f"`runs.csv`, `curves.csv` and the measurements in [{folder}/]({folder}/)"
    lines = [
        *([QUICK] if results.scale.quick else [INTRODUCTION, *(f"- {one}" for one in sentences(results, groups)), ""]),
        f"{there} of {wanted} runs are there{more}. {'Trained on ' + where + '.' if where else ''}".rstrip(),
        f"This page is made by `make results` from {files}.",
    ]
    if there < wanted:
        lines += [
            "",
            f"**{wanted - there} runs are missing**. The sections say which, and the commands at the end train them.",
        ]
    return [*lines, ""]


def _summary(results: Results, heading: str, verdicts: Sequence[Checked], text: str = "") -> list[str]:
    header = ["the report says", "verdict", "what decided", "p, whole page", "by the last epoch"]
    lines = [f"## {heading}", "", *([text] if text else []), line(header), "|" + "---|" * len(header)]
    for one in verdicts:
        verdict = one.verdict
        evidence = verdict.evidence[verdict.decisive] if verdict.evidence else _to_train(results, verdict)
        decided = "; ".join(part for part in (evidence, verdict.setting, verdict.coverage) if part)
        p = "" if one.page_p is None else p_in_words(one.page_p).removeprefix("p ").removeprefix("= ")
        last = "the same" if one.by_last_epoch == verdict.outcome else one.by_last_epoch and f"**{one.by_last_epoch}**"
        lines.append(line([verdict.says, f"**{one.outcome}**", decided.replace("|", "\\|"), p, last]))
    return [*lines, ""]


def _to_train(results: Results, verdict: Verdict) -> str:
    if not verdict.experiments:
        return f"`{results.scale.make}`"
    return f"`{results.scale.make} ONLY={','.join(verdict.experiments)}`"


def _statements(results: Results, verdicts: Sequence[Checked], named: bool) -> list[str]:
    lines = []
    for one in verdicts:
        name = f"**{one.verdict.name}.** " if named else ""
        evidence = ". ".join(one.verdict.sentences) or _to_train(results, one.verdict)
        lines.append(f"- {name}{one.verdict.says}: **{one.outcome}**. {evidence}.")
    return [*lines, ""]


def _section(
    results: Results, section: Section, pictures: Sequence[Picture], verdicts: Mapping[str, list[Checked]]
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
    notes = untrained(results, name)
    if not results.scale.quick:
        notes += [*shortfalls(results, name, section.published_epochs), *order(results, name)]
    if name in REPORT:
        notes += [
            f"**{one.outcome}**: {one.verdict.says}. {'. '.join(one.verdict.sentences)}."
            for one in verdicts.get(name, [])
            if one.outcome != MISSING
        ]
    if name == RECIPE:
        notes += recipe_lines(results)
    lines += [f"- {note}" for note in notes]
    lines += [""] if notes else []
    if name == "lab2_l1":
        lines += weights_table(results)
    return [*lines, *_picture_lines(results, pictures)]


def _picture_lines(results: Results, pictures: Sequence[Picture]) -> list[str]:
    folder = os.path.relpath(results.scale.pictures, results.scale.page.parent)
    lines = []
    for picture in pictures:
        lines += [f"![{picture.caption}]({folder}/{picture.name}.png)", "", f"*{picture.caption}.*", ""]
    return lines


def _by_experiment(verdicts: Sequence[Checked]) -> dict[str, list[Checked]]:
    """Returns the verdicts by the section that they stand in, which is the first of their experiments'."""
    found: dict[str, list[Checked]] = {}
    for one in verdicts:
        for experiment in one.verdict.experiments[:1]:
            found.setdefault(experiment, []).append(one)
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
