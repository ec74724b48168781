"""Options and addresses as text: what several rooms show, store and compare in the same way."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Beginnings of the options that say where a run is trained and kept, or from where it goes on: whatever they are, it is
# the same experiment.
ELSEWHERE = ("tracking.", "resume", "trainer.device", "data.root")


def flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walks nested options as dotted keys; lists and empty mappings stay values."""
    for key, value in config.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def without_password(text: str) -> str:
    """Returns a database's address, or a text with some, as it may be shown."""
    return re.sub(r"://([^:/@\s]*):[^/\s]*@", r"://\1:***@", text)


def counted(count: int, noun: str) -> str:
    """Returns a number of things in words: `1 seed`, `2 seeds`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
