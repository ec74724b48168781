import copy
import io
import os
import pickle
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_tuning import devices
from cifar_tuning.errors import UserError
from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.events import Progress
from tests.training.conftest import assert_same


def make(model) -> checkpoints.Checkpoint:
    return checkpoints.Checkpoint(
        model=model.state_dict(),
        optimizer={},
        schedule={},
        generators=checkpoints.generator_states(torch.device("cpu")),
        progress=Progress(),
        config={"model": {"_target_": "SimpleNN"}},
    )


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def bytes_of(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


UNREADABLE = "can't be read as a checkpoint"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No checkpoint at"),
        (b"", UNREADABLE),
        (b"not a checkpoint", UNREADABLE),
        (pickle.dumps({"a": 1}), f"{UNREADABLE}|is not a checkpoint of this project"),
        (bytes_of({"format": checkpoints.FORMAT, "model": Malicious()}), UNREADABLE),
        (bytes_of({"format": checkpoints.FORMAT, "model": torch.zeros(99)})[:-99], UNREADABLE),
        (bytes_of({"state_dict": {}}), "is not a checkpoint of this project"),
    ],
    ids=["missing", "empty", "text", "pickle", "malicious", "truncated", "another project's"],
)
def test_files_that_are_no_checkpoints(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        checkpoints.load(file)
    assert not (tmp_path / "owned").exists()  # nothing but data is unpickled


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 7}, "format is 7, not 1"),
        ({"sharpness": 0.1}, "other fields.*'sharpness'"),
        ({"optimizer": ...}, "other fields.*'optimizer'"),
        ({"progress": ...}, "other fields.*'progress'"),
        ({"progress": {"history": [{"epoch": 0}]}}, "other fields.*train_loss"),
    ],
)
def test_another_versions_file(tmp_path, changed, message):
    checkpoints.Taken(make(SimpleNN())).write(tmp_path / "x.pt")
    content = torch.load(tmp_path / "x.pt") | changed
    torch.save({key: value for key, value in content.items() if value is not ...}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"not a checkpoint of this version of the project: .*{message}.*train again"):
        checkpoints.load(tmp_path / "x.pt")


@pytest.mark.parametrize("other", [ResNet(), SimpleNN(batch_norm=True), SimpleNN(num_classes=5)])
def test_another_models_checkpoint_is_refused_with_the_differences(tmp_path, other):
    checkpoints.Taken(make(SimpleNN())).write(tmp_path / "x.pt")
    loaded = checkpoints.load(tmp_path / "x.pt")
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(UserError, match=r"another model[\s\S]*SimpleNN[\s\S]*there"):
        checkpoints.load_weights(other, loaded, "x.pt")
    assert_same(before, other.state_dict())


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    checkpoints.Taken(make(SimpleNN())).write(file)
    old = file.read_bytes()
    bad = make(SimpleNN())
    bad.config = {"x": lambda: None}
    with pytest.raises(UserError, match="lambda"):
        checkpoints.Taken(bad).write(file)
    assert file.read_bytes() == old


def test_numbers_of_numpy_are_plain_ones_in_the_file(tmp_path):
    """A schedule that computes with NumPy leaves them in the optimizer and in its own state."""
    checkpoint = make(SimpleNN())
    checkpoint.optimizer = {"param_groups": [{"lr": np.float64(0.1), "params": [np.int64(0)]}]}
    checkpoint.schedule = {"_last_lr": [np.float64(0.1)]}
    checkpoints.Taken(checkpoint).write(tmp_path / "last.pt")
    read = checkpoints.load(tmp_path / "last.pt")
    assert (read.optimizer, read.schedule) == (
        {"param_groups": [{"lr": 0.1, "params": [0]}]},
        {"_last_lr": [0.1]},
    )


@pytest.mark.parametrize("value", [Path(), np.zeros(2), lambda: None, iter({})], ids=lambda value: type(value).__name__)
def test_what_could_not_be_read_again_is_said_before_the_training(tmp_path, value):
    checkpoint = make(SimpleNN())
    checkpoint.schedule = {"count": 1, "part": [value]}
    with pytest.raises(UserError, match=r"could not be read again.*\(schedule: part: "):
        checkpoints.Taken(checkpoint).write(tmp_path / "last.pt")
    assert not list(tmp_path.iterdir())


def test_dictionaries_are_read_as_what_they_were(tmp_path):
    """With the versions of a model's layers, which some look at when they are loaded."""
    checkpoint = make(SimpleNN(batch_norm=True))
    checkpoint.schedule = {"milestones": Counter({2: 1, 4: 2}), "plain": {"a": OrderedDict(b=1)}}
    checkpoints.Taken(checkpoint).write(tmp_path / "last.pt")
    read = checkpoints.load(tmp_path)
    assert read.schedule == checkpoint.schedule
    assert sorted(read.schedule["milestones"].elements()) == [2, 4, 4]
    assert type(read.schedule["plain"]["a"]) is OrderedDict
    assert read.model._metadata == checkpoint.model._metadata
    assert read.model._metadata["norm1"]["version"] == 2


class Counting(torch.nn.Linear):
    """Keeps something of its own, by PyTorch's hook for it."""

    seen = 0

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_a_layers_extra_state_is_kept(tmp_path):
    model, other = Counting(2, 3), Counting(2, 3)
    model.seen = 5
    checkpoints.Taken(make(model)).write(tmp_path / "x.pt")
    checkpoints.load_weights(other, checkpoints.load(tmp_path / "x.pt"), "x.pt")
    assert other.seen == 5
    assert torch.equal(other.weight, model.weight)
    with pytest.raises(UserError, match=r"weight: \(3, 2\) there, \(4, 2\) here"):
        checkpoints.load_weights(Counting(2, 4), checkpoints.load(tmp_path / "x.pt"), "x.pt")


def test_a_model_with_extra_state_is_trained_without_validation(make_trainer, tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), Counting(3072, 10))
    model[1].seen = 5
    assert make_trainer(model=model, epochs=1, validate=False, folder=tmp_path).fit().state == "complete"
    assert checkpoints.load(tmp_path).model["1._extra_state"] == {"seen": 5}


@pytest.mark.parametrize("own", [True, False])
def test_a_gpus_random_numbers_go_on_on_whichever_gpu_the_run_has_now(monkeypatch, own):
    """Dropout draws from the run's device alone: what other devices there are, and which of them it is, may change."""
    begun, now, restored = torch.device("cuda:1"), torch.device("cuda"), {}
    stream = torch.Generator().manual_seed(7)
    monkeypatch.setattr(torch.cuda, "get_rng_state", {begun: stream.get_state()}.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.update({device: state}))
    states = checkpoints.generator_states(begun, stream if own else None)
    checkpoints.restore_generators(states, now)
    assert list(restored) == [now]
    assert torch.equal(restored[now], stream.get_state())


def test_a_run_that_goes_on_on_another_kind_of_device_says_so(caplog):
    states = checkpoints.generator_states(torch.device("cpu"))
    checkpoints.restore_generators(states, torch.device("cpu"))
    assert caplog.text == ""
    checkpoints.restore_generators(states, torch.device("cuda"))
    assert "dropout, if it has any, draws other numbers" in caplog.text


@pytest.mark.parametrize("far", [(), ("cpu",)], ids=["clones", "fetched together"])
def test_what_is_taken_is_as_it_was_then(tmp_path, monkeypatch, far):
    monkeypatch.setattr(devices, "QUEUES", far)  # as if they were on a GPU
    checkpoint = make(SimpleNN())
    weight, steps, seen, groups = torch.ones(3), torch.tensor(1.0), {1}, [{"lr": 0.1, "betas": [0.9]}]
    checkpoint.model = {"weight": weight}
    checkpoint.optimizer = {"state": {0: {"step": steps}}, "param_groups": groups}
    checkpoint.schedule = {"seen": seen, "bytes": bytearray(b"as it was"), "nested": [[1]]}
    epochs = len(checkpoint.progress.history)
    taken = checkpoints.Taken(checkpoint)
    weight.zero_(), steps.add_(1), seen.add(2), groups.append({}), groups[0]["betas"].append(1)
    checkpoint.schedule["bytes"][:] = b"changed!!"
    checkpoint.schedule["nested"][0].append(2)
    checkpoint.progress.history.append(None)
    checkpoint.progress.best_acc = 2.0
    taken.write(tmp_path / "last.pt")
    read = checkpoints.load(tmp_path)
    assert read.model["weight"].tolist() == [1, 1, 1]
    assert read.optimizer == {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": [0.9]}]}
    assert read.schedule == {"seen": {1}, "bytes": bytearray(b"as it was"), "nested": [[1]]}
    assert (len(read.progress.history), read.progress.best_acc) == (epochs, read.progress.best_acc)
    assert read.progress.best_acc != 2.0


@pytest.mark.parametrize("far", [(), ("cpu",)], ids=["clones", "fetched together"])
def test_tensors_are_written_without_what_lies_around_them_and_read_as_they_were(tmp_path, monkeypatch, far):
    monkeypatch.setattr(devices, "QUEUES", far)  # as if they were on a GPU
    table = torch.arange(4000.0).view(100, 40)
    images = torch.randn(2, 3, 5, 4).to(memory_format=torch.channels_last)
    scaled = [
        torch.quantize_per_tensor(torch.tensor([1.0, 2.0]) * scale, scale, 0, torch.qint8) for scale in (0.1, 9.0)
    ]
    state = {
        "part": table[3:5],
        "with gaps": table[:3, :2],
        "transposed": table[:2].T,
        "expanded": torch.ones(1).expand(3),
        "images": images,
        "one of them": images[1:],
        "number": torch.tensor(2.5),
        "nothing": torch.empty(0),
        "count": torch.tensor([7]),
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]),
        "trained": torch.nn.Parameter(torch.ones(2)),
        "quantized": scaled[0],
        "otherwise": scaled[1],
    }
    checkpoint = make(SimpleNN())
    checkpoint.model = state
    checkpoint.optimizer = {"state": {0: {"buffer": table[7], "step": 3}}, "param_groups": [{"betas": (0.9, 1)}]}
    checkpoints.Taken(checkpoint).write(tmp_path / "last.pt")
    read = checkpoints.load(tmp_path)
    for name, tensor in state.items():
        assert torch.equal(read.model[name], tensor), name
        assert (type(read.model[name]), read.model[name].dtype) == (torch.Tensor, tensor.dtype)
        assert read.model[name].untyped_storage().nbytes() == max(tensor.numel(), 0) * tensor.element_size(), name
    assert read.model["images"].stride() == images.stride()
    assert torch.equal(read.optimizer["state"][0]["buffer"], table[7])
    assert read.optimizer["state"][0]["step"] == 3
    assert read.optimizer["param_groups"] == [{"betas": (0.9, 1)}]
    sparse = torch.eye(3).to_sparse()
    checkpoint.model = {"sparse": sparse}
    checkpoints.Taken(checkpoint).write(tmp_path / "sparse.pt")
    assert torch.equal(checkpoints.load(tmp_path / "sparse.pt").model["sparse"].to_dense(), torch.eye(3))
