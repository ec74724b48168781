"""The lab report's experiments, as their overlays describe them: what is swept, and what was published."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.overrides import key_of, value_of

# In the order of the page.
REPORT = (
    "lab1_baseline",
    "lab1_decay",
    "lab2_augmentation",
    "lab2_batch_norm",
    "lab2_bn_lr",
    "lab2_swish",
    "lab2_lr",
    "lab2_l2",
    "lab2_l1",
    "lab3_resnet20",
    "lab3_untried",
    "lab3_past_90",
)
CLAIMS = (
    "claim_bn_mean",
    "claim_augmentation",
    "claim_dropout",
    "claim_l2_dropout",
    "claim_leaky_relu",
    "claim_separable",
    "claim_shortcut",
)
EXPERIMENTS = REPORT + CLAIMS
# What neither makes a run another experiment's nor another configuration.
IGNORED = re.compile(
    r"(experiment|seed|tracking.*|resume|published|data\.root|"
    r"trainer\.(device|precision|memory_format|compile|cuda_graphs))$"
)
OBJECTIVE = "val/acc_best"
# As in conf/trainer/default.yaml.
DEFAULT_EPOCHS = 30
LENGTH = "trainer.epochs="


@dataclass(frozen=True)
class Experiment:
    """A table's or a claim's grid.

    Attributes:
        name: of the overlay.
        params: the swept options but for the seed, each with its values as `spell` writes them.
        seeds: of every configuration.
        published: the report's accuracies, each with the options that it belongs to.
        epochs: of each run.
        setting: what the overlay says besides these, to be compared.
    """

    name: str
    params: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    published: Sequence[tuple[Mapping[str, str], float]] = field(default_factory=list)
    epochs: int = DEFAULT_EPOCHS
    setting: str = ""

    @property
    def configurations(self) -> list[str]:
        """All configurations in the order of the grid; an empty text where nothing is swept."""
        pairs = [[f"{key}={value}" for value in values] for key, values in self.params.items()]
        return [" ".join(combination) for combination in itertools.product(*pairs)]

    @property
    def runs(self) -> list[tuple[str, int]]:
        """All runs of the grid, configuration and seed, in the order of the sweep's jobs: the seed is swept first."""
        return [(configuration, seed) for seed in self.seeds for configuration in self.configurations]

    def restricted_to(self, runs: Iterable[tuple[str, int]]) -> list[str]:
        """Returns the overrides that leave the smallest grid with these runs in it; none if it is the whole one."""
        wanted = [(dict(options_of(configuration)), seed) for configuration, seed in runs]
        overrides = []
        for key, values in self.params.items():
            kept = [value for value in values if any(options.get(key) == value for options, _ in wanted)]
            overrides += [f"{key}={','.join(kept)}"] if len(kept) < len(values) else []
        seeds = [seed for seed in self.seeds if any(seed == one for _, one in wanted)]
        return overrides + ([f"seed={','.join(map(str, seeds))}"] if len(seeds) < len(self.seeds) else [])

    def has(self, configuration: str) -> bool:
        """Whether nothing but the swept options was given otherwise, and the training is not shorter."""
        options = dict(options_of(configuration))
        epochs = options.pop("trainer.epochs", str(self.epochs))
        return options.keys() == self.params.keys() and epochs.isdigit() and int(epochs) >= self.epochs

    def published_value(self, configuration: str) -> float | None:
        """Returns the report's accuracy (0 to 1) for a configuration, if it has one."""
        options = dict(options_of(configuration))
        for wanted, value in self.published:
            if all(options.get(key) == text for key, text in wanted.items()):
                return value
        return None

    def sweeps(self, override: str) -> bool:
        """Whether an override gives values, as a plain list, to something that the grid sweeps."""
        key = key_of(override)
        return (key == "seed" or key in self.params) and "(" not in value_of(override)

    def changed(self, overrides: Iterable[str]) -> "Experiment":
        """Returns the grid that is left when swept options are given otherwise, as on the command line."""
        params, seeds, epochs = dict(self.params), list(self.seeds), self.epochs
        for key, values in (_parse(override) for override in overrides):
            if key == "seed":
                seeds = [int(value) for value in values]
            elif key in params:
                params[key] = values
            elif key == "trainer.epochs":
                epochs = int(values[0])
        return Experiment(self.name, params, seeds, self.published, epochs, self.setting)

    def shares(self, run: tuple[str, int], other: "Experiment") -> bool:
        """Whether another grid has this very run (configuration and seed) as well."""
        return (self.setting, self.epochs) == (other.setting, other.epochs) and run in self.runs and run in other.runs


@lru_cache(maxsize=64)
def load_experiment(name: str) -> Experiment:
    """Reads an overlay; Hydra is not needed for it."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.load(PROJECT_ROOT / "conf" / "experiment" / f"{name}.yaml")
    swept = {str(key): _values(value) for key, value in content.hydra.sweeper.params.items()}
    seeds = [int(seed) for seed in swept.pop("seed")]
    published = []
    for entry in content.get("published") or []:
        options = {str(key): spell(value) for key, value in entry.items() if key != OBJECTIVE}
        published.append((options, float(entry[OBJECTIVE])))
    epochs = content.get("trainer", {}).get("epochs", DEFAULT_EPOCHS)
    del content.hydra.sweeper.params
    content.pop("published", None)
    return Experiment(name, swept, seeds, published, epochs, OmegaConf.to_yaml(content))


def spell(value: Any) -> str:
    """Returns an option's value in one spelling, whichever of `1e-4` and 0.0001, `False` and `false` was written."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return f"{float(value):g}"
    except ValueError:
        text = str(value)
        return text.lower() if text in ("True", "False") else text  # Hydra writes them so


def configuration_of(overrides: Iterable[str], experiment: Experiment, without: Iterable[str] = ()) -> str:
    """Returns what tells a job from the others of its experiment: swept options first, then the user's own.

    Args:
        overrides: of the job, as Hydra reports them.
        experiment: which decides the order.
        without: overrides that all jobs have and that are not to be shown.
    """
    dropped = set(without)
    found = {key: values[0] for key, values in (_parse(o) for o in overrides if o not in dropped)}
    found = {key: value for key, value in found.items() if not IGNORED.match(key)}
    swept = [key for key in experiment.params if key in found]
    return " ".join(f"{key}={found[key]}" for key in [*swept, *sorted(found.keys() - set(swept))])


def options_of(configuration: str) -> list[tuple[str, str]]:
    """Splits a configuration into its options and their values."""
    return [(key_of(option), value_of(option)) for option in configuration.split()]


def _parse(override: str) -> tuple[str, list[str]]:
    return key_of(override), _values(value_of(override))


def _values(value: Any) -> list[str]:
    return [spell(part.strip()) for part in value.split(",")] if isinstance(value, str) else [spell(value)]
