"""The datasets' settings, their YAMLs, and what they load."""

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data import CIFAR10, CropFlip, Synthetic, TorchvisionData, TrainBatches
from cifar_tuning.data.__main__ import main
from cifar_tuning.data.base import ImageData
from cifar_tuning.data.spec import CIFAR10_SPEC, array_sha256
from cifar_tuning.errors import ConfigError, DataError
from cifar_tuning.jobs.checks import problems_with

MAX_SEED = 2**32 - 1


@pytest.mark.parametrize(
    ("dataset", "settings", "problems"),
    [
        (CIFAR10, {}, []),
        (CIFAR10, {"train_limit": 45_000}, []),
        (CIFAR10, {"train_limit": 1000, "batch_size": 1000, "split_seed": MAX_SEED}, []),
        (
            CIFAR10,
            {"train_limit": 60_000},
            ["data.train_limit=60000: must be between 1 and 45000 (50,000 images minus data.val_size=5000), or null"],
        ),
        (CIFAR10, {"train_limit": 0}, ["data.train_limit=0: must be between 1 and 45000 ("]),
        (CIFAR10, {"train_limit": "all"}, ["data.train_limit=all: must be"]),
        (CIFAR10, {"val_size": 0, "train_limit": 50_000}, []),
        (CIFAR10, {"val_size": 50_000}, ["data.val_size=50000: must be between 0 and 49999 (50,000 images)"]),
        (CIFAR10, {"val_size": 5000.0}, ["data.val_size=5000.0: must be"]),
        (CIFAR10, {"batch_size": 0}, ["data.batch_size=0: must be between 1 and 45000 ("]),
        (CIFAR10, {"batch_size": 45_001}, ["data.batch_size=45001: must be"]),
        (CIFAR10, {"train_limit": 100}, ["data.batch_size=128: must be between 1 and 100 (data.train_limit=100)"]),
        (CIFAR10, {"split_seed": -1}, ["data.split_seed=-1: must be a whole number between 0 and 4294967295"]),
        (CIFAR10, {"root": ""}, ["data.root=: must be the path of a folder"]),
        (CIFAR10, {"root": None}, ["data.root=None: must be"]),
        (
            CIFAR10,
            {"val_size": -1, "train_limit": 60_000, "batch_size": True, "split_seed": None},
            ["data.val_size=-1", "data.train_limit=60000", "data.batch_size=True", "data.split_seed=None"],
        ),
        (Synthetic, {}, []),
        (Synthetic, {"train_limit": 512, "batch_size": 512}, []),
        (Synthetic, {"train_limit": 513}, ["data.train_limit=513: must be between 1 and 512 (data.train_size"]),
        (Synthetic, {"batch_size": 513}, ["data.batch_size=513: must be between 1 and 512 (data.train_size"]),
        (Synthetic, {"val_size": 0}, []),
        (Synthetic, {"train_size": 0, "test_size": -1}, ["data.train_size=0", "data.test_size=-1"]),
        (Synthetic, {"val_size": -1}, ["data.val_size=-1: must be a whole number of at least 0"]),
        (TorchvisionData, {"dataset": "SVHN", "train_limit": 68_257, "size": 34}, []),
        (TorchvisionData, {"dataset": "MNIST", "val_size": 0, "batch_size": 60_000}, []),
        (
            TorchvisionData,
            {"dataset": "EMNIST", "root": ""},
            [
                "data.dataset=EMNIST: must be one of CIFAR100, MNIST, FashionMNIST, SVHN",
                "data.root=: must be the path of a folder",
            ],
        ),
        (
            TorchvisionData,
            {"dataset": "MNIST", "root": 3, "size": 33, "val_size": 60_000, "split_seed": -1},
            [
                "data.root=3: must be",
                "data.size=33: must be 28 (pixels), as the images are, or an even number more, for a black border, up "
                "to 512",
                "data.val_size=60000: must be between 0 and 59999 (60,000 images)",
                "data.split_seed=-1",
            ],
        ),
        (TorchvisionData, {"dataset": "CIFAR100", "size": 28}, ["data.size=28: must be 32 (pixels)"]),
        (TorchvisionData, {"dataset": "CIFAR100", "size": 514}, ["data.size=514: must be 32 (pixels)"]),
        (TorchvisionData, {"dataset": ["MNIST"]}, ["data.dataset=['MNIST']: must be one of"]),
        (Synthetic, {"data_seed": "x", "split_seed": 0.5}, ["data.data_seed=x", "data.split_seed=0.5"]),
    ],
)
def test_every_problem_is_named(dataset, settings, problems):
    found = problems_with(dataset, settings)
    assert len(found) == len(problems), found
    assert all(line.startswith(start) for line, start in zip(found, problems, strict=True)), found
    if problems:
        with pytest.raises(ValueError, match=re.escape("; ".join(found))):
            dataset(**settings)
    else:
        dataset(**settings)


@pytest.mark.parametrize(
    ("name", "dataset", "own"),
    [
        ("cifar10", CIFAR10, {}),
        ("synthetic", Synthetic, {}),
        ("cifar100", TorchvisionData, {"dataset": "CIFAR100"}),
        ("mnist", TorchvisionData, {"dataset": "MNIST", "size": 32}),
        ("fashion_mnist", TorchvisionData, {"dataset": "FashionMNIST", "size": 32}),
        ("svhn", TorchvisionData, {"dataset": "SVHN"}),
    ],
)
def test_a_yaml_is_its_constructor(name, dataset, own):
    config = OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / "conf" / "data" / f"{name}.yaml"))
    assert config.pop("_target_") == f"cifar_tuning.data.{dataset.__name__}"
    defaults = {key: each.default for key, each in inspect.signature(dataset).parameters.items()}
    if dataset is not Synthetic:
        assert config.pop("root") == "${project_root:}/data"
        assert defaults.pop("root") == PROJECT_ROOT / "data"
    if dataset is CIFAR10:
        assert defaults.pop("spec") is CIFAR10_SPEC
        assert defaults.pop("sources") is None
    assert config == defaults | own


@pytest.fixture(scope="module")
def synthetic():
    return Synthetic().load()


def test_synthetic_has_the_sizes_and_the_types(synthetic):
    test = Synthetic().load_test()
    assert [len(each) for each in (synthetic.train, synthetic.val, test)] == [512, 128, 128]
    for each in (synthetic.train, synthetic.val, test):
        assert (each.images.dtype, each.labels.dtype) == (torch.uint8, torch.int64)
        assert each.images.shape == (len(each), 32, 32, 3)
        counts = torch.bincount(each.labels, minlength=10)
        assert counts.max() - counts.min() <= 2
    everything = torch.cat([synthetic.train.images, synthetic.val.images, test.images])
    assert len({image.numpy().tobytes() for image in everything}) == 768  # no image is in two parts


def test_synthetic_seeds(synthetic):
    again = Synthetic().load()
    assert torch.equal(again.train.images, synthetic.train.images)
    assert torch.equal(again.val.labels, synthetic.val.labels)
    assert not torch.equal(Synthetic(data_seed=1).load().train.images, synthetic.train.images)
    other = Synthetic(split_seed=1).load()
    assert torch.equal(other.train.stored, synthetic.train.stored)
    assert not torch.equal(other.val.rows, synthetic.val.rows)


@pytest.mark.parametrize("limit", [10, 64, 511])
def test_train_limit_is_stratified_and_leaves_validation_alone(synthetic, limit):
    limited = Synthetic(train_limit=limit, batch_size=1).load()
    assert len(limited.train) == limit
    counts = torch.bincount(limited.train.labels, minlength=10)
    assert counts.max() - counts.min() <= 2
    assert set(limited.train.rows.tolist()) <= set(synthetic.train.rows.tolist())
    assert torch.equal(limited.val.rows, synthetic.val.rows)


class Own(ImageData):
    """A dataset of the user's."""

    name, classes, mean, std = "own", ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3
    val_size, split_seed, train_limit, batch_size = 2, 0, None, 4
    image_shape = (4, 4, 3)

    def __init__(self, images: np.ndarray, labels: object) -> None:
        self.given = images, labels

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        return self.given

    def prepare(self) -> str:
        return "here"


IMAGES, LABELS = np.zeros((6, 4, 4, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def read_only():
    images = IMAGES.copy()
    images.flags.writeable = False
    return images


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [list, torch.from_numpy, "read_only", lambda images: images[..., ::-1]])
def test_images_may_be_of_any_type(images, read_only):
    splits = Own(read_only if images == "read_only" else images(IMAGES), LABELS).load()
    assert splits.train.images.shape == (4, 4, 4, 3)


@pytest.mark.parametrize(
    "labels", [LABELS, list(LABELS), LABELS.astype(float), LABELS.astype(object), torch.from_numpy(LABELS)]
)
def test_labels_may_be_of_any_type(labels):
    data = Own(IMAGES, labels)
    data.val_size = np.int64(2)
    splits = data.load()
    assert sorted([*splits.train.labels.tolist(), *splits.val.labels.tolist()]) == sorted(LABELS.tolist())


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (
            IMAGES,
            LABELS + 1,
            "the labels of PART must be whole numbers from 0 to 2, for the 3 classes; they go from 1 to 3",
        ),
        (IMAGES, LABELS - 100, "they go from -100 to -98"),
        (IMAGES, LABELS / 2, "labels of PART must be whole numbers"),
        (
            IMAGES,
            LABELS.astype(str),
            "labels of PART must be whole numbers from 0 to 2, for the 3 classes; they are of type <U",
        ),
        (IMAGES, LABELS[:5], "labels of PART must be one for each of the 6 images; their shape is (5,)"),
        (IMAGES, np.eye(3, dtype=int)[LABELS], "one for each of the 6 images; their shape is (6, 3)"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, "must be uint8 N×4×4×3, as image_shape says; they are uint8 6×3×4×4"),
        (IMAGES / 255, LABELS, "they are float64 6×4×4×3"),
        (IMAGES, np.where(LABELS, LABELS, np.nan), "they go from nan to nan"),
    ],
)
def test_arrays_that_are_not_what_they_should_be(images, labels, said):
    data = Own(images, labels)
    for part, load in (("train", data.load), ("test", data.load_test)):
        with pytest.raises(DataError, match=re.escape(said.replace("PART", part))):
            load()


def test_an_empty_test_set_is_said_to_be_one():
    with pytest.raises(DataError, match="own: there are no test images"):
        Own(IMAGES[:0], LABELS[:0]).load_test()


NOT_SHARES = "own: {} must be 3 numbers, of pixels from 0 to 1 (and no std be 0); it is {}"


@pytest.mark.parametrize(
    ("key", "value", "error", "said"),
    [
        ("mean", (125.0, 123.0, 114.0), DataError, NOT_SHARES),
        ("mean", (0.5,), DataError, NOT_SHARES),
        ("mean", 0.5, DataError, NOT_SHARES),
        ("std", (0.2, 0.0, 0.2), DataError, NOT_SHARES),
        ("std", (63, 62, 67), DataError, NOT_SHARES),
        ("val_size", 0.2, ConfigError, "data.{}={}: must be between 0 and 5 (6 images)"),
        ("val_size", 6, ConfigError, "data.{}={}: must be between 0 and 5"),
        (
            "train_limit",
            5,
            ConfigError,
            "data.{}={}: must be between 1 and 4 (6 images minus data.val_size=2), or null",
        ),
        ("batch_size", 0, ConfigError, "data.{}={}: must be between 1 and 4 (6 images minus data.val_size=2)"),
    ],
)
def test_attributes_that_are_not_what_they_should_be(key, value, error, said):
    data = Own(IMAGES, LABELS)
    setattr(data, key, value)
    with pytest.raises(error, match=re.escape(said.format(key, value))):
        data.load()


def test_synthetic_is_learnt_within_a_few_epochs():
    data = Synthetic()
    splits = data.load()
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(8 * 7 * 7, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train = TrainBatches(
        splits.train.stored,
        splits.train.labels,
        rows=splits.train.rows,
        batch_size=data.batch_size,
        augmentation=CropFlip(),
        mean=data.mean,
        std=data.std,
        seed=0,
    )
    for epoch in range(5):
        for x, y in train.epoch(epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    x = (splits.val.images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    accuracy = (model(x).argmax(1) == splits.val.labels).float().mean()
    assert accuracy > 0.9


def test_cifar10_reads_only_what_it_is_asked_for(tiny, tmp_path, monkeypatch):
    tiny.place(tmp_path, "npm archive")
    monkeypatch.setattr("cifar_tuning.data.cifar10.TRAIN_IMAGES", 100)
    data = CIFAR10(tmp_path, val_size=10, train_limit=50, batch_size=5, spec=tiny.spec)
    splits = data.load()
    assert (len(splits.train), len(splits.val)) == (50, 10)
    assert torch.bincount(splits.val.labels).tolist() == [1] * 10
    assert torch.bincount(splits.train.labels).tolist() == [5] * 10
    stored = torch.from_numpy(tiny.arrays["train_images"])
    assert torch.equal(splits.train.images, stored[splits.train.rows])
    assert not set(splits.train.rows.tolist()) & set(splits.val.rows.tolist())
    test = data.load_test()
    assert torch.equal(test.images, torch.from_numpy(tiny.arrays["test_images"]))
    assert data.prepare() == str(tmp_path / "cifar10")


def test_a_relative_root_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert CIFAR10("data").root == tmp_path / "data"
    assert CIFAR10("~/data").root == tmp_path / "home" / "data"


@pytest.mark.slow
def test_torchvision_is_imported_when_it_is_needed_and_works_through_the_shim():
    code = (
        "import sys, cifar_tuning.data as data; print('torchvision' in sys.modules);"
        "from cifar_tuning.torchvision_compat import torchvision as t; import torch;"
        "image = torch.zeros(3, 32, 32, dtype=torch.uint8);"
        "print(t.transforms.v2.RandomCrop(32, padding=4)(image).shape, t.models.resnet18().fc.out_features)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.stdout == "False\ntorch.Size([3, 32, 32]) 1000\n", done.stderr


@pytest.mark.parametrize("others", [[], ["--dataset", "MNIST"], ["--dataset", "fashion_mnist"]])
def test_the_command_line_reports_an_unusable_folder_on_one_screen(tmp_path, monkeypatch, capsys, others):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["data", str(tmp_path / "file" / "data"), *others])
    assert main() == 1
    assert capsys.readouterr().err.startswith(f"data.root={tmp_path / 'file' / 'data'}: ")


@pytest.mark.slow
def test_real_cifar10():
    data = CIFAR10()
    for part in ("train", "test"):
        images, labels = data.arrays(part)
        assert array_sha256(images) == CIFAR10_SPEC.sha256[f"{part}_images"]
        assert array_sha256(labels) == CIFAR10_SPEC.sha256[f"{part}_labels"]
    splits, test = data.load(), data.load_test()
    assert [len(each) for each in (splits.train, splits.val, test)] == [45_000, 5000, 10_000]
    assert torch.bincount(splits.val.labels).tolist() == [500] * 10
    assert array_sha256(splits.val.rows.numpy()) == "721d3fd60e6eddf2b6a0fe4b974428caaddef712f395667b003ee9df6bfbb994"
    assert [data.classes[label] for label in test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    pixels = splits.train.images[::10].double() / 255
    for measured, stated in ((pixels.mean((0, 1, 2)), data.mean), (pixels.std((0, 1, 2)), data.std)):
        torch.testing.assert_close(measured, torch.tensor(stated, dtype=torch.float64), rtol=0, atol=0.002)
