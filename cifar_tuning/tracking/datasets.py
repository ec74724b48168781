"""What a run was trained on, for MLflow's column of datasets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifar_tuning.targets import VERIFIED_DATA

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

# Options of the data group that say how images are read, not which they are; the folder is one where its content is
# verified.
NOT_OF_THE_IMAGES, FOLDER = ("batch_size",), "root"
# MLflow's own digests have as many characters.
DIGEST = 8


def dataset_input(config: Mapping[str, Any]) -> DatasetInput | None:
    """Describe the images of a configuration's `data` group; None if it has none.

    The digest is of the options that choose images, the split's among them, so that runs with the same digest can be
    compared: data is loaded after the run is opened, and CIFAR-10 is verified. Of other images the folder is all that
    is known.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = config.get("data")
    if not isinstance(data, Mapping) or "_target_" not in data:
        return None
    left_out = (*NOT_OF_THE_IMAGES, FOLDER) if data["_target_"] in VERIFIED_DATA else NOT_OF_THE_IMAGES
    chosen = {key: value for key, value in data.items() if key not in left_out}
    text = json.dumps(chosen, sort_keys=True, default=str)
    dataset = Dataset(
        name=str(data.get("dataset") or str(data["_target_"]).rpartition(".")[2]),
        digest=hashlib.sha256(text.encode()).hexdigest()[:DIGEST],
        source_type="code",
        source=json.dumps({"tags": {"mlflow.source.name": str(data["_target_"])}}),
        profile=text,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
