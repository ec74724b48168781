"""A logged model opens without this package and predicts from raw images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tuning.tracking.logged_model import _unchecked_requirements


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


class Classifier(nn.Module):
    """Has what ours have: normalisation buffers, batch norm, a custom autograd function, a flatten."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1))
        self.convolution = nn.Conv2d(3, 8, 5)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 14 * 14, 10)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2).float() / 255 - self.mean
        x = Swish.apply(self.norm(self.convolution(x.contiguous(memory_format=torch.channels_last))))
        return self.linear(torch.max_pool2d(x, 2).flatten(1))


@pytest.mark.slow
def test_an_example_of_one_image_leaves_the_batch_size_open(started):
    import mlflow

    model = Classifier().eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    tracker = started()
    model_id = tracker.log_model(model, images[:1])
    tracker.finish("complete")
    folder = tracker.open_store().client.get_logged_model(model_id).artifact_location
    loaded = mlflow.pytorch.load_model(folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded(torch.from_numpy(images)), model(torch.from_numpy(images)))


@pytest.mark.slow
def test_round_trip(started, client, root, tmp_path):
    torch.manual_seed(0)
    model = Classifier().eval()
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    tracker = started(config={"optimizer": {"lr": 0.1}, "data": {"_target_": "cifar_tuning.data.CIFAR10"}})
    for step in range(3):
        tracker.log_epoch({"val/acc_best": step / 10, "val/acc": 0.5}, step)
    model_id = tracker.log_model(model, images[:4])
    tracker.finish("complete")
    assert model_id is not None

    run = client.get_run(tracker.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    logged = client.get_logged_model(model_id)
    assert logged.source_run_id == tracker.run_id
    assert logged.params["optimizer.lr"] == "0.1"
    figures = [(metric.key, metric.value, metric.step, metric.dataset_name) for metric in logged.metrics]
    assert figures == [("val/acc_best", 0.2, 2, "CIFAR10")]
    assert len(client.get_metric_history(tracker.run_id, "val/acc_best")) == 3
    assert {"mlflow.user", "mlflow.source.name"} <= set(logged.tags)

    np.save(tmp_path / "images.npy", images)
    script = f"""
import sys, warnings; warnings.simplefilter("ignore")
import mlflow, numpy as np, torch
mlflow.set_tracking_uri("sqlite:///{root / "mlflow.db"}")
images = np.load("images.npy")
with torch.no_grad():
    for uri in ("models:/{model_id}", "runs:/{tracker.run_id}/model"):
        model = mlflow.pytorch.load_model(uri)
        for size in (1, 3, 7):
            np.save(f"{{uri.partition(':')[0]}}-{{size}}.npy", model(torch.from_numpy(images[:size])).numpy())
assert mlflow.models.get_model_info(uri).signature.inputs.inputs[0].shape == (-1, 32, 32, 3)
np.save("pyfunc.npy", mlflow.pyfunc.load_model(uri).predict(images))
assert "cifar_tuning" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    for kind in ("models", "runs"):
        for size in (1, 3, 7):
            got = np.load(tmp_path / f"{kind}-{size}.npy")
            np.testing.assert_allclose(got, expected[:size], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "pyfunc.npy"), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_exported_costs_a_warning(started, client, caplog):
    class Odd(nn.Module):
        def forward(self, images):
            if images.sum() > 0:  # depends on the data: no graph
                return images.float().flatten(1)[:, :10]
            return images.float().flatten(1)[:, 10:20]

    tracker = started()
    assert tracker.log_model(Odd(), np.ones((2, 32, 32, 3), np.uint8)) is None
    tracker.finish("complete")
    assert "The model was not logged" in caplog.text
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_model_that_counts_its_images_is_bound_to_their_number(started, caplog):
    class Counting(nn.Module):
        def forward(self, images):
            return images.float().reshape(len(images), -1)[:, :10]

    tracker = started()
    assert tracker.log_model(Counting(), np.ones((5, 4, 4, 3), np.uint8)) is not None
    tracker.finish("complete")
    assert "The model in MLflow takes batches of 2 images and of no other number" in caplog.text


def test_the_requirements_are_not_compared_with_what_they_were_read_from(started, monkeypatch, caplog):
    """Relies on a function of MLflow's that is not of its public interface."""
    from mlflow.utils import environment

    compared = []
    monkeypatch.setattr(environment, "warn_dependency_requirement_mismatches", compared.append)
    tracker = started()
    model_id = tracker.log_model(Classifier().eval(), np.ones((2, 32, 32, 3), np.uint8))
    tracker.finish("complete")
    assert compared == []
    assert "and of no other number" not in caplog.text
    kept = Path(tracker.open_store().client.get_logged_model(model_id).artifact_location)
    # No package index has a build such as 2.13.0+cpu.
    assert f"torch=={torch.__version__.partition('+')[0]}\n" in (kept / "requirements.txt").read_text()
    environment.warn_dependency_requirement_mismatches("others'")
    assert compared == ["others'"]


def test_an_mlflow_that_compares_requirements_elsewhere_is_left_alone(monkeypatch):
    from mlflow.utils import environment

    monkeypatch.delattr(environment, "warn_dependency_requirement_mismatches")
    with _unchecked_requirements():
        assert not hasattr(environment, "warn_dependency_requirement_mismatches")
    assert not hasattr(environment, "warn_dependency_requirement_mismatches")
