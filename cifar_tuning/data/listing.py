"""Which images a dataset of one's own has: by folders of the classes, or by a CSV file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_tuning.data import folders
from cifar_tuning.data.folders import EXTENSIONS, TEST, TRAIN, VAL, Listed, class_folders, class_of
from cifar_tuning.data.labels_file import LabelsFile

# The options that say so, beside `root`.
OPTIONS = ("labels", "file_column", "label_column", "group_column", "split_column")


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        root: the folder.
        labels: the file that names them; None: each lies in root/PART/CLASS.
    """

    root: Path
    labels: LabelsFile | None = None

    @classmethod
    def of(cls, root: str | Path, labels: object = None, **columns: object) -> "Listing":
        """Returns the listing that options of a dataset mean.

        Raises:
            ValueError: one of them is of the wrong kind.
        """
        folder = Path(root).expanduser().absolute()
        named = {name: str(value) for name, value in columns.items() if value is not None}
        if labels is None:
            if named:
                raise ValueError(f"data.{next(iter(named))}: is a column of the file data.labels, which is null")
            return cls(folder)
        if not isinstance(labels, str | Path) or not str(labels).strip():
            raise ValueError(f"data.labels={labels}: must be the path of a CSV file, or null")
        return cls(folder, LabelsFile(folder / Path(labels).expanduser(), **named))

    def part(self, part: str) -> Listed:
        """Returns the images of "train", "val" or "test".

        Raises:
            ValueError: the file says what can't be.
        """
        return folders.listed(self.root, part) if self.labels is None else self.labels.listed(self.root, part)

    def folder(self, part: str) -> Path:
        """Returns the folder that all images of a part are below."""
        own = self.root / part
        of_part = self.labels is None or all(file.is_relative_to(own) for file in self.part(part).files)
        return own if of_part else self.root

    def key(self, part: str) -> str:
        """Returns what tells a part's decoded images from those of others in its folder."""
        return "" if self.labels is None else f"\n{self.labels.file}\n{part}"

    def place(self, part: str) -> str:
        """Returns where the images of a part are, in words."""
        if self.labels is None:
            return f"{part}/"
        return self.labels.file.name if self.labels.split_column is None else f"{part} of {self.labels.file.name}"

    @property
    def classes(self) -> list[str] | None:
        """The names of the training images' classes in their order, numbers by their size; None if there are none.

        Raises:
            ValueError: the file says what can't be.
        """
        names = sorted(set(self.part(TRAIN).labels))
        if names and all(name.isdecimal() for name in names) and self.labels is not None:
            names.sort(key=int)
        return names or None

    def problem(self, classes: Sequence[str] | None) -> str | None:
        """Returns what keeps it from being a dataset, in a line.

        Args:
            classes: their names, if they were given.

        Raises:
            ValueError: the file says what can't be.
        """
        if not self.root.is_dir():
            return f"data.root={self.root}: there is no such folder"
        names = self.classes if classes is None else classes
        if self.labels is None and (wrong := self._problem_of_folders(names)):
            return wrong
        if self.labels is not None and len(names or ()) < 2:
            return f"data.labels={self.labels.file}: has {len(names or ())} classes; at least two are needed"
        return self.unknown(VAL, names or ()) or self.unknown(TEST, names or ())

    def _problem_of_folders(self, classes: Sequence[str] | None) -> str | None:
        begin = f"data.root={self.root}: "
        wanted = (
            f"put each image into {TRAIN}/CLASS/, a folder for each of at least two classes, or name a CSV file of "
            "their classes by data.labels="
        )
        if not (self.root / TRAIN).is_dir() and classes is None:
            return f"{begin}has no folder {TRAIN}/; {wanted}"
        there = self.classes or ()
        if empty := [one.name for one in class_folders(self.root / TRAIN) if class_of(one) not in there]:
            return f"{begin}there is no image in {TRAIN}/{empty[0]} (of the kinds {', '.join(EXTENSIONS)})"
        if classes is None or len(classes) < 2:
            return f"{begin}has {len(classes or ())} classes with images in {TRAIN}/; {wanted}"
        return None

    def unknown(self, part: str, classes: Sequence[str]) -> str | None:
        """Returns which class of a part is none of those that the training images have, or that were given."""
        strange = [name for name in dict.fromkeys(self.part(part).labels) if name not in classes]
        if not strange:
            return None
        if self.labels is None:
            return f"data.root={self.root}: {part}/{strange[0]} is none of the classes {some(classes)}"
        return f"data.labels={self.labels.file}: {strange[0]}, in {part}, is none of the classes {some(classes)}"

    def nothing(self, part: str, classes: Sequence[str]) -> str:
        """Returns what to do where a part has no images."""
        purpose = {TEST: ", so nothing to be tested on", TRAIN: ", so nothing to be trained on"}.get(part, "")
        if self.labels is None:
            return (
                f"data.root={self.root}: there is no image in {part}/CLASS/{purpose}; put labelled ones there, in "
                f"folders called {some(classes)}."
            )
        return (
            f"data.labels={self.labels.file}: no image is for {part}{purpose}; data.split_column= names a column that "
            "says which are. predict.py images=FOLDER predicts images without classes."
        )


def classes_in(root: object, **options: object) -> list[str] | None:
    """Returns the classes that a dataset's training images have; None where there are none, or a mistake is to be told.

    Args:
        root: the folder, as configured.
        options: those of `OPTIONS` that are configured.
    """
    if not isinstance(root, str | Path) or not str(root).strip():
        return None
    try:
        return Listing.of(root, **options).classes
    except ValueError:  # the dataset's check says which
        return None


def some(names: Sequence[str], most: int = 5) -> str:
    """Returns the first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
