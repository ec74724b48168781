"""Whether runs were evaluated on the same images, as far as their recorded options tell."""

import re
from collections.abc import Sequence

from cifar_tuning.reporting.selection import Run
from cifar_tuning.targets import VERIFIED_DATA

# Options of a dataset that decide which images validate.
DECIDE = ("_target_", "dataset", "split_seed", "val_size", "data_seed")
FOLDER = re.compile(r"(^|[._/-])(root|dir|directory|folder|path|file|url|uri)$", re.IGNORECASE)


def names_the_data(runs: Sequence[Run], key: str) -> bool:
    """Whether a parameter is a dataset's folder of which nobody knows what is in it, so that its name tells."""
    if not key.startswith("data.") or not FOLDER.search(key):
        return False
    return any(key in run.params and run.params.get("data._target_") not in VERIFIED_DATA for run in runs)


def image_options(runs: Sequence[Run]) -> list[str]:
    """Returns the parameters that decide which images judge the runs."""
    keys = sorted({key for run in runs for key in run.params if key.startswith("data.")})
    return [key for key in keys if key.rpartition(".")[2] in DECIDE or names_the_data(runs, key)]


def differing_images(configurations: Sequence[Sequence[Run]]) -> list[str]:
    """Returns the options by which configurations are judged on different images, so that none can be the best.

    A split that is drawn anew for each repetition is none of them: all configurations have their share of it.

    Args:
        configurations: the runs of each.
    """
    differing = []
    for key in image_options([run for runs in configurations for run in runs]):
        values = [{run.params[key] for run in runs if key in run.params} for runs in configurations]
        if all(len(found) < 2 for found in values) and len(set().union(*values)) > 1:
            differing.append(key)
    return differing


def judged_on(runs: Sequence[Run]) -> str:
    """Says whether the runs were judged on the same images; what is not ours may name its options otherwise."""
    options = image_options(runs)
    differing = [key for key in options if len({run.params[key] for run in runs if key in run.params}) > 1]
    if folders := [key for key in differing if key.rpartition(".")[2] not in DECIDE]:
        return f"Whether all runs were judged on the same images is not known: they differ in {', '.join(folders)}."
    if differing:
        return f"The runs are judged on different images ({', '.join(differing)}): part of a difference may be theirs."
    if not options:
        return "Whether all runs were judged on the same images is not known: they have no parameter of data.* for it."
    return "All runs are judged on the same images: nothing here speaks of other images."
