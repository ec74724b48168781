"""What a run carries besides its results: its configuration, and where it came from."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cifar_tuning.processes import boot, host, installation, started
from cifar_tuning.text import flatten
from cifar_tuning.tracking.base import RunContext

PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
STATE = "state"
# Of a run that failed: what it failed of, in a line.
ERROR = "error"
HOST = "cifar_tuning.host"
MACHINE = "cifar_tuning.machine"
BOOT = "cifar_tuning.boot"
INSTALLATION = "cifar_tuning.installation"
PID = "cifar_tuning.pid"
PROCESS_STARTED = "cifar_tuning.process_started"
FOLDER = "cifar_tuning.folder"
SWEEP_DIR = "cifar_tuning.sweep_dir"
JOB_NUM = "cifar_tuning.job_num"
OVERRIDES = "cifar_tuning.overrides"
# Where the configuration was looked for, as flags of the command.
CONFIG_FLAGS = "cifar_tuning.config_flags"
# A parameter, not a tag: results of others that a sweep's overlay carries.
PUBLISHED = "published"

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "optuna", "mlflow")

# MLflow's own limits on one value.
MAX_PARAM = 6000
MAX_TAG = 8000


def as_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Turn a config into MLflow parameters, spelled as on Hydra's command line (`true`, `null`).

    A number has one spelling, by which MLflow groups and filters: that of `lr=1.0` is `1`, as that of `lr=1`.
    """
    return {
        safe_key(key): whole(str(value)) if isinstance(value, float) else _spell(value)[:MAX_PARAM]
        for key, value in flatten(config)
    }


def whole(text: str) -> str:
    """Spell a whole number without the decimal point that a float has; other texts stay as they are."""
    return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text) else text


def published_params(rows: Any) -> dict[str, str]:
    """Spell an overlay's `published` as parameters of the sweep's run: one, or one a row where it is too long."""
    text = json.dumps(rows)
    if len(text) <= MAX_PARAM:
        return {PUBLISHED: text}
    return {f"{PUBLISHED}.{number}": json.dumps(row)[:MAX_PARAM] for number, row in enumerate(rows)}


def safe_key(key: str) -> str:
    """Replace what MLflow refuses in a name."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:250]


def run_tags(context: RunContext, root: Path) -> dict[str, str]:
    """Build the tags a job's run is created with."""
    tags = {
        **process_tags(),
        **git_tags(root),
        FOLDER: absolute(context.folder),
        OVERRIDES: ",".join(context.overrides),
        "seed": str(context.seed),
        STATE: "running",
        **context.tags,
    }
    if context.job_num is not None:
        tags[JOB_NUM] = str(context.job_num)
    return {key: value[:MAX_TAG] for key, value in tags.items()}


def own_tags(tags: Mapping[Any, Any]) -> dict[str, str]:
    """Spell tags of the user's own; nested ones by dotted keys."""
    return {safe_key(key): _spell(value)[:MAX_TAG] for key, value in flatten(tags)}


def absolute(path: Path) -> str:
    """Spell a folder in the one way by which another process recognises it."""
    return str(Path(path).resolve())


def process_tags() -> dict[str, str]:
    """Say which process on which machine carries a run, so that its death can be noticed."""
    # Not cached beside the rest: a forked child is another process.
    return {**_machine_tags(), PID: str(os.getpid()), PROCESS_STARTED: started(os.getpid()) or ""}


@lru_cache(maxsize=1)
def _machine_tags() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under an id that has no name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return {
        HOST: socket.gethostname(),
        MACHINE: host(),
        BOOT: boot(),
        INSTALLATION: installation(),
        "cifar_tuning.versions": json.dumps(_versions()),
        "mlflow.user": user,
        "mlflow.source.name": sys.argv[0] or "python",
        "mlflow.source.type": "LOCAL",
    }


def _versions() -> dict[str, str]:
    # Asked of the installed metadata: importing these packages would take seconds.
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@lru_cache(maxsize=8)
def git_tags(root: Path) -> dict[str, str]:
    """Name the commit this project is at, and whether tracked files have been changed since."""
    answer = _git(root, "rev-parse", "HEAD", "--show-toplevel")
    if answer is None:
        return {}
    commit, top = answer.splitlines()
    # Installed somewhere inside another repository: its commit says nothing about us.
    if Path(top).resolve() != root.resolve():
        return {}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"mlflow.source.git.commit": commit, "cifar_tuning.git_dirty": _spell(bool(changes))}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding=sys.getfilesystemencoding(),  # of the paths that it says
            errors="surrogateescape",
            timeout=5,
            check=True,
            # `git status` would otherwise lock the index against the user's own git command.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _spell(value: Any) -> str:
    if value is None or isinstance(value, bool | list | tuple | Mapping):
        return json.dumps(value, default=str)
    return str(value)
