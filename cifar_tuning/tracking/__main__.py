"""`python -m cifar_tuning.tracking` makes the default store, so that no run has to wait for it."""

from __future__ import annotations

import sys

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import TrackingError
from cifar_tuning.tracking import database
from cifar_tuning.tracking.store import locate, quieten


def main() -> int:
    """Create `mlflow.db` at the project's root if it isn't there; MLflow is imported only then."""
    quieten()
    location = locate(None, PROJECT_ROOT)
    assert location.file is not None
    try:
        created = database.prepare(location.file)
    except TrackingError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"MLflow store: {location.file} ({'created' if created else 'there already'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
