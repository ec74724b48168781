"""The augmentations' settings, their YAMLs, and torchvision's transforms as one of them."""

import random
import re

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data import CropFlip, NoAugmentation, TrainBatches, TransformsV2
from cifar_tuning.torchvision_compat import torchvision

v2 = torchvision.transforms.v2
MEAN, STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # normalises to 0..255, fit for comparing pixels


def built(name, **overrides):
    config = OmegaConf.load(PROJECT_ROOT / "conf" / "augmentation" / f"{name}.yaml")
    return instantiate(config, **overrides, _execution_whitelist_=["cifar_tuning.*", "torchvision.*"])


def epoch_of(augmentation, images, *, seed=0, epoch=0, batch_size=8):
    train = TrainBatches(
        images,
        torch.arange(len(images)),
        batch_size=batch_size,
        augmentation=augmentation,
        mean=MEAN,
        std=STD,
        seed=seed,
    )
    xs, ys = zip(*train.epoch(epoch), strict=True)
    return torch.cat(xs), torch.cat(ys)


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (20, 32, 32, 3)).astype(np.uint8))


def test_the_yamls_build_what_they_say():
    assert isinstance(built("none"), NoAugmentation)
    crop_flip = built("crop_flip")
    assert (crop_flip.padding, crop_flip.flip) == (4, 0.5)
    assert built("crop_flip", flip=False).flip == 0
    assert built("crop_flip", flip=True).flip == 0.5
    trivial = built("trivial_augment")
    assert [type(t) for t in trivial.transforms] == [
        v2.RandomCrop,
        v2.RandomHorizontalFlip,
        v2.TrivialAugmentWide,
    ]


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({}, []),
        ({"padding": 0, "flip": 0}, []),
        ({"padding": 32, "flip": 1.0}, []),
        ({"padding": -1}, ["augmentation.padding=-1: must be a whole number between 0 and 32"]),
        ({"padding": 33}, ["augmentation.padding=33: must be"]),
        ({"padding": 1.5}, ["augmentation.padding=1.5: must be"]),
        ({"padding": True}, ["augmentation.padding=True: must be"]),
        ({"flip": 1.01}, ["augmentation.flip=1.01: must be a probability between 0 and 1"]),
        ({"flip": float("nan")}, ["augmentation.flip=nan: must be"]),
        ({"flip": "often"}, ["augmentation.flip=often: must be"]),
        ({"padding": None, "flip": -0.5}, ["augmentation.padding=None", "augmentation.flip=-0.5"]),
    ],
)
def test_crop_flip_names_every_problem(settings, problems):
    found = CropFlip.check(**settings)
    assert len(found) == len(problems)
    assert all(line.startswith(start) for line, start in zip(found, problems, strict=True))
    if problems:
        with pytest.raises(ValueError, match=re.escape("; ".join(found))):
            CropFlip(**settings)
    else:
        CropFlip(**settings)


@pytest.mark.parametrize("transforms", [[], None, "flip", 3, ["flip"], [v2.RandomCrop(32), 5]])
def test_transforms_must_be_transforms(transforms):
    with pytest.raises(ValueError, match=r"augmentation\.transforms"):
        TransformsV2(transforms)


def test_transforms_equal_torchvision_by_hand(images):
    x, y = epoch_of(TransformsV2([v2.RandomHorizontalFlip(p=1.0), v2.Pad(2), v2.CenterCrop(32)]), images)
    assert torch.equal(x, images[y].flip(2).permute(0, 3, 1, 2).float())


def test_float_results_count_as_0_to_1(images):
    x, y = epoch_of(TransformsV2([v2.ToDtype(torch.float32, scale=True)]), images)
    torch.testing.assert_close(x, images[y].permute(0, 3, 1, 2).float(), rtol=0, atol=1e-4)


def test_transforms_draw_for_each_image_by_itself(images):
    same = images[:1].expand(20, -1, -1, -1)
    x, _ = epoch_of(TransformsV2([v2.RandomCrop(32, padding=4)]), same, batch_size=20)
    assert len({image.numpy().tobytes() for image in x}) > 12


def test_transforms_depend_on_seed_and_epoch_alone_and_leave_no_trace(images):
    augmentation = built("trivial_augment")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = epoch_of(augmentation, images)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    assert torch.equal(epoch_of(augmentation, images, batch_size=5)[0], first)
    assert not torch.equal(epoch_of(augmentation, images, epoch=1)[0], first)
    assert not torch.equal(epoch_of(augmentation, images, seed=1)[0], first)


def test_a_transform_that_changes_the_shape_is_named(images):
    with pytest.raises(ValueError, match=r"must keep its shape 3×H×W, but became \(3, 16, 16\)"):
        epoch_of(TransformsV2([v2.Resize(16)]), images)
