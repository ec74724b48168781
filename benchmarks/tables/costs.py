"""What a job costs beside its training."""

from benchmarks.ours import NAMES
from benchmarks.start import HELP, IMPORTS, JOB, LOADED, MODEL_TOO, SHORT_JOB, WITH_MODEL
from benchmarks.tables.cells import Figures, beginning, verdict


def start(content: Figures) -> list[str]:
    """From a command to its end, and its memory."""
    seconds, memory = content["median"], content["peak_mb"]
    holds = verdict(content["over_imports"] <= 1)
    processes = {
        IMPORTS: "`python -c 'import torch, mlflow'`",
        JOB: f"`python train.py {SHORT_JOB}`",
        WITH_MODEL: f"the same with `{MODEL_TOO}`",
        LOADED: "the usual pipeline, ten batches (without its workers)",
        HELP: "`python train.py --help`",
    }
    return [
        *beginning(content, "start", "process", "seconds, median", "peak memory"),
        *(
            f"| {said} | {seconds[name]:.2f} | {memory[name]:,} MB |"
            for name, said in processes.items()
            if name in seconds
        ),
        "",
        f"The job takes {content['over_imports']:.2f} s more than the imports alone (goal 1.0: {holds}).",
    ]


def tracking(content: Figures) -> list[str]:
    """Each call of the tracker, and the checkpoints of an epoch."""
    rows = beginning(content, "tracking", "call", "median", "nine in ten under")
    for name, figure in content["calls"].items():
        rows.append(f"| `{name}` | {figure['median_ms']:.1f} ms | {figure['ninth_decile_ms']:.1f} ms |")
    for network, milliseconds in content.get("checkpoints_ms", {}).items():
        rows.append(f"| both checkpoints of an epoch, {NAMES[network]} | {milliseconds:.1f} ms | |")
    return rows
