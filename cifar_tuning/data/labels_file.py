"""A CSV file that says of which class each image is, as Kaggle's competitions have it."""

import csv
import functools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cifar_tuning.data.folders import TEST, TRAIN, VAL, Listed, images_in

# What a column may call the parts, in small letters.
PARTS = {TRAIN: TRAIN, "training": TRAIN, VAL: VAL, "valid": VAL, "validation": VAL, TEST: TEST, "testing": TEST}
_DELIMITERS = ",;\t"
# Mistakes that are told of.
_MOST = 5


@dataclass(frozen=True)
class LabelsFile:
    """Where a file is, and the names of its columns.

    Attributes:
        file: its path.
        file_column, label_column: hold the images' files and classes; None: the columns that have no other meaning,
            the files' first.
        group_column: holds what no two parts may have in common; None: there is no such column.
        split_column: says which images are trained on, which validate and which are for the end; None: all are trained
            on, or set apart from these.
    """

    file: Path
    file_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None

    def listed(self, root: Path, part: str) -> Listed:
        """Returns the images of a part in the order of their paths.

        Args:
            root: the folder that the images are in or below.
            part: "train", "val" or "test".

        Raises:
            ValueError: the file can't be read, or says what can't be; names the options that it is about.
        """
        return _listed(self, root).get(part, Listed((), (), Counter()))


class _Row(NamedTuple):
    """A line of the file."""

    line: int
    file: str
    label: str
    group: str
    part: str


@functools.cache  # as a folder's images are
def _listed(labels: LabelsFile, root: Path) -> dict[str, Listed]:
    rows = _read(labels)
    images, _ = images_in(root)
    found = _find(labels, rows, root, images)
    if twice := _twice(rows, found):
        raise _problem(labels, twice)
    unnamed = len(images) - len(found)
    others = Counter({f"images that {labels.file.name} does not name": unnamed} if unnamed else {})
    several = sorted(zip(found, rows, strict=True))
    listed = {}
    for part in (TRAIN, VAL, TEST):
        chosen = [(file, row) for file, row in several if row.part == part]
        listed[part] = Listed(
            tuple(row.label for _, row in chosen),
            tuple(file for file, _ in chosen),
            others if part == TRAIN else Counter(),
            tuple(row.group for _, row in chosen) if labels.group_column is not None else (),
        )
    _refuse_shared_groups(labels, listed)
    return listed


def _problem(labels: LabelsFile, lines: Sequence[str]) -> ValueError:
    more = f"; and {len(lines) - _MOST:,} more" if len(lines) > _MOST else ""
    return ValueError(f"data.labels={labels.file}: {'; '.join(lines[:_MOST])}{more}")


def _read(labels: LabelsFile) -> list[_Row]:
    """Returns the lines of a file, each with all that is asked for."""
    try:
        with labels.file.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            # Strict: else an open quotation mark takes the lines behind it for a part of its value.
            lines = csv.reader(stream, delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(lines, [])]
            if not any(header):
                raise _problem(labels, ["its first line must name the columns, such as id,label, but is empty"])
            columns = _columns(labels, header)
            problems: list[str] = []
            rows = [row for values in lines if any(values) and (row := _row(lines.line_num, values, columns, problems))]
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError)
        raise _problem(
            labels, ["there is no such file (a relative path is one in data.root)" if is_gone else str(error)]
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _problem(labels, [f"is no CSV file in UTF-8 ({error})"]) from error
    if problems or not rows:
        raise _problem(labels, problems or ["has no line but the names of its columns"])
    return rows


def _columns(labels: LabelsFile, header: Sequence[str]) -> dict[str, int]:
    """Returns where what is asked for stands in each line."""
    there = ", ".join(name for name in header if name) or "none"
    given = {name: value for name, value in vars(labels).items() if name.endswith("_column") and value is not None}
    for name, value in given.items():
        if value not in header:
            raise ValueError(f"data.{name}={value}: {labels.file} has no such column; it has {there}")
    # One without a name is the index that pandas writes.
    free = [place for place, name in enumerate(header) if name and name not in given.values()]
    unsaid = [name for name in ("file_column", "label_column") if name not in given]
    if unsaid and len(free) != len(unsaid):
        options = " and ".join(f"data.{name}=" for name in unsaid)
        raise _problem(labels, [f"has the columns {there}; say by {options} which hold the images' files and classes"])
    return {name: header.index(value) for name, value in given.items()} | dict(zip(unsaid, free, strict=False))


def _row(line: int, values: Sequence[str], columns: dict[str, int], problems: list[str]) -> _Row | None:
    """Returns what a line says, or adds to the problems why it can't be used."""
    known = {name: values[place].strip() if place < len(values) else "" for name, place in columns.items()}
    if empty := [name for name, value in known.items() if not value]:
        problems.append(f"line {line} has no {empty[0].removesuffix('_column')}")
        return None
    part = PARTS.get(known.get("split_column", TRAIN).lower())
    if part is None:
        problems.append(f"line {line} is for {known['split_column']}, in place of {TRAIN}, {VAL} or {TEST}")
        return None
    file = _normal(PurePosixPath(known["file_column"].replace("\\", "/")).as_posix())
    return _Row(line, file, _normal(known["label_column"]), known.get("group_column", ""), part)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)  # as the names of folders


def _find(labels: LabelsFile, rows: Sequence[_Row], root: Path, images: Sequence[Path]) -> list[Path]:
    """Returns each line's image: below the folder of its part, below the root, or anywhere by its name alone.

    The ending may be left out.
    """
    by_path, by_name = defaultdict(list), defaultdict(list)
    # Of what is asked for, how well the images that fit best do so: the smaller, the better.
    fitting: dict[tuple[str, str], tuple[float, list[Path]]] = {(row.part, row.file): (3, []) for row in rows}
    whole = _normal(f"{root.as_posix()}/")
    for part, file in fitting:
        by_path[f"{part}/{file}"].append((0, (part, file)))
        by_path[file.removeprefix(whole)].append((1, (part, file)))
        by_name[file].append((2, (part, file)))
    for image in images:
        path, name = (_normal(text) for text in (image.relative_to(root).as_posix(), image.name))
        for known, text in ((by_path, path), (by_name, name)):
            for key, worse in ((text, 0), (text.removesuffix(image.suffix), 0.5)):
                for rank, asked in known.get(key, ()):
                    best, chosen = fitting[asked]
                    if rank + worse < best:
                        fitting[asked] = rank + worse, [image]
                    elif rank + worse == best and len(chosen) < 2 and image not in chosen:  # two are ambiguous enough
                        chosen.append(image)
    found = [fitting[row.part, row.file][1] for row in rows]
    absent = [f"{row.file} (line {row.line})" for row, chosen in zip(rows, found, strict=True) if not chosen]
    if absent:
        more = f" and {len(absent) - _MOST:,} more" if len(absent) > _MOST else ""
        what = f"{len(absent):,} of {len(rows):,} images are not in {root}: {', '.join(absent[:_MOST])}{more}"
        raise _problem(labels, [what])
    several = [
        f"line {row.line}: {row.file} may be {' or '.join(str(one.relative_to(root)) for one in chosen)}"
        for row, chosen in zip(rows, found, strict=True)
        if len(chosen) > 1
    ]
    if several:
        raise _problem(labels, several)
    return [chosen[0] for chosen in found]


def _twice(rows: Sequence[_Row], found: Sequence[Path]) -> list[str]:
    """Returns a line for each image that has a line already."""
    lines: dict[Path, int] = {}
    return [
        f"lines {lines[file]} and {row.line} are both about {row.file}"
        for row, file in zip(rows, found, strict=True)
        if lines.setdefault(file, row.line) != row.line
    ]


def _refuse_shared_groups(labels: LabelsFile, listed: dict[str, Listed]) -> None:
    """Refuses a group that a column of the file itself has split."""
    where: dict[str, str] = {}
    for part, images in listed.items():
        for group in images.groups:
            if where.setdefault(group, part) != part:
                raise ValueError(
                    f"data.group_column={labels.group_column}: {group} is in {where[group]} and in {part}, by "
                    f"data.split_column={labels.split_column} of {labels.file}"
                )
