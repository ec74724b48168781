"""What the claims need measured on trained networks, or counted: a JSON file each, beside the page's CSV."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifar_tuning.files import write_text
from cifar_tuning.lab.collect import Found, processor
from cifar_tuning.lab.runs import Key
from cifar_tuning.lab.scale import Scale
from cifar_tuning.lab.weights import WEIGHTS, Checkpoints, measure_weights

BATCH_NORM, SEPARABLE, STAGES = "batch_norm", "separable", "stages"
SURFACES = {"A": "surface_shortcut", "none": "surface_plain"}
# Channel means of batches are no more certain than this.
DIGITS = 7


def measure(scale: Scale, found: Mapping[Key, Found], only: set[str], again: bool = False) -> None:
    """Measures what the trained runs allow and what is not measured yet, or before they were trained.

    Args:
        scale: how much, and where to.
        found: the runs whose folders are here.
        only: the experiments that are asked for.
        again: measure also what is measured already.
    """
    scale.data.mkdir(parents=True, exist_ok=True)
    todo: list[tuple[str, str, Callable[[Checkpoints, Scale], Any]]] = [
        ("claim_bn_mean", BATCH_NORM, _batch_norm),
        ("lab2_l1", WEIGHTS, lambda checkpoints, _: measure_weights(checkpoints)),
        *(("claim_shortcut", name, _surface_of(shortcut)) for shortcut, name in SURFACES.items()),
    ]
    for experiment, name, function in todo:
        checkpoints = {key[1:]: one.folder / "best.pt" for key, one in sorted(found.items()) if key[0] == experiment}
        file = scale.data / f"{name}.json"
        if experiment in only and checkpoints and (again or _is_older(file, checkpoints)):
            print(f"measuring {name}", flush=True)
            content = function(checkpoints, scale)
            if content is not None:
                _write(file, content)
    for experiment, name, count in (("claim_separable", SEPARABLE, _separable), ("claim_squeezenet", STAGES, _stages)):
        file = scale.data / f"{name}.json"
        if (experiment in only or experiment == "claim_squeezenet") and (again or not file.exists()):
            print(f"measuring {name}", flush=True)
            _write(file, count(scale))


def _is_older(file: Path, checkpoints: Checkpoints) -> bool:
    newest = max(path.stat().st_mtime for path in checkpoints.values())
    return not file.exists() or file.stat().st_mtime < newest


def _batch_norm(checkpoints: Checkpoints, scale: Scale) -> Any:
    """The channel means of every seed's batch-norm layers."""
    from cifar_tuning.lab.batch_norm import measure_batch_norm

    means = {
        str(seed): [asdict(entry) for entry in measure_batch_norm(checkpoint)]
        for (_, seed), checkpoint in checkpoints.items()
    }
    return {seed: [_short(entry) for entry in entries] for seed, entries in means.items()}


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: [round(v, DIGITS) for v in value] if isinstance(value, list) else value for k, value in entry.items()}


def _surface_of(shortcut: str) -> Callable[[Checkpoints, Scale], Any]:
    """Returns the measurement of the loss surface around the network with, or without, shortcuts."""

    def surface(checkpoints: Checkpoints, scale: Scale) -> Any:
        from cifar_tuning.jobs.export import model_from_checkpoint
        from cifar_tuning.lab.batch_norm import eval_batches
        from cifar_tuning.lab.surface import loss_surface
        from cifar_tuning.training.settings import place, resolve_device

        paths = [path for (configuration, _), path in checkpoints.items() if configuration.endswith(f"={shortcut}")]
        if not paths:
            return None
        model, data = model_from_checkpoint(paths[0])
        device = resolve_device("auto")
        batches = eval_batches(data.load().train, scale.surface_images, data, device)
        return loss_surface(place(model, device), batches, points=scale.surface_points).content()

    return surface


def _separable(scale: Scale) -> Any:
    """Counts and times of ResNet-20's 3×3 layers."""
    import torch

    from cifar_tuning.lab import cost

    batch_size = 128
    times = cost.measure_times(batch_size=batch_size, repeats=scale.timing_rounds)
    return {
        "machine": f"{processor()}, PyTorch threads: {torch.get_num_threads()}, fp32, batch {batch_size}",
        "layers": [{**asdict(layer), "ratio": layer.ratio} for layer in cost.layers_of()],
        "totals": cost.network_totals(),
        "times": [asdict(entry) for entry in times],
    }


def _stages(scale: Scale) -> Any:
    """MACs of SqueezeNet and AlexNet, stage by stage."""
    from cifar_tuning.lab.stages import STAGES as NETWORKS
    from cifar_tuning.lab.stages import network_stages

    return {name: [asdict(stage) for stage in network_stages(name)] for name in NETWORKS}


def _write(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content) + "\n")
