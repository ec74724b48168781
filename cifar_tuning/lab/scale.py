"""How large the redoing is: the whole of it, for docs/, or two epochs of everything, in multirun/quick."""

import os
from dataclasses import dataclass
from pathlib import Path

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.lab.experiments import Experiment, load_experiment

QUICK_LIMIT = 1000


@dataclass(frozen=True)
class Scale:
    """Where everything goes, and how much of it there is.

    Attributes:
        sweeps: the sweeps' folders are in it.
        page: the page, Markdown.
        data: the folder of the CSV files and measurements.
        pictures: the folder of the page's pictures.
        surface_points: on each axis of a loss surface; odd.
        surface_images: training images that its losses are means over.
        timing_rounds: of each layer's timing.
        quick: two epochs of everything.
    """

    sweeps: Path
    page: Path
    data: Path
    pictures: Path
    surface_points: int = 21
    surface_images: int = 500
    timing_rounds: int = 20
    quick: bool = False

    @property
    def common(self) -> tuple[str, ...]:
        """Overrides that may stand in every command and are no part of a configuration."""
        if not self.quick:
            return ()
        return "trainer.epochs=2", "data.val_size=1000", f"data.train_limit={QUICK_LIMIT}", "tracking=none"

    @property
    def make(self) -> str:
        """The command that makes the page."""
        return "make results QUICK=1" if self.quick else "make results"

    def overrides(self, name: str) -> list[str]:
        """Returns what is added to an experiment's command, its folder apart."""
        grid, overrides = load_experiment(name), list(self.common)
        if not self.quick:
            return overrides
        if "data.train_limit" in grid.params:
            overrides = [o for o in overrides if "train_limit" not in o]
            overrides.append(f"data.train_limit={QUICK_LIMIT // 5},{2 * QUICK_LIMIT}")
        if len(grid.seeds) > 2:
            overrides.append(f"seed={grid.seeds[0]},{grid.seeds[1]}")
        return overrides

    def experiment(self, name: str) -> Experiment:
        """Returns the grid as it is at this scale."""
        return load_experiment(name).changed(self.overrides(name))

    def command(self, name: str, *more: str, folder: str | None = None) -> list[str]:
        """Returns the arguments of `python` that train an experiment.

        Args:
            name: of the overlay.
            more: further overrides; they come last and win.
            folder: the sweep's folder in `sweeps`; None: the experiment's own.
        """
        # Commands are typed in the project's root; the page shows them.
        path = os.path.relpath(self.sweeps / (folder or name), PROJECT_ROOT)
        own = [f"hydra.sweep.dir={path}"] if self.quick or folder else []
        return ["train.py", "-m", f"experiment={name}", *self.overrides(name), *more, *own]


def full() -> Scale:
    """The page in docs/."""
    docs = PROJECT_ROOT / "docs"
    return Scale(PROJECT_ROOT / "multirun", docs / "results.md", docs / "results", docs / "images" / "results")


def quick() -> Scale:
    """A page that shows how it goes; its numbers mean nothing."""
    root = PROJECT_ROOT / "multirun" / "quick"
    return Scale(
        root,
        root / "results.md",
        root / "data",
        root / "images",
        surface_points=7,
        surface_images=256,
        timing_rounds=3,
        quick=True,
    )
