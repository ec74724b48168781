"""Progress bars that leave a log file readable."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """Returns tqdm's bar with its own options; written to a file it moves every five seconds only."""
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 5.0, **options)
