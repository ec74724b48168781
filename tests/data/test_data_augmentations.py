"""The augmentations' settings, their YAMLs, and torchvision's transforms as one of them."""

import re
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data import CropFlip, NoAugmentation, TrainBatches, TransformsV2
from cifar_tuning.data.augmentation import AUGMENTATION_STREAM, epoch_bits
from cifar_tuning.jobs.checks import problems_with
from cifar_tuning.torchvision_compat import torchvision

v2 = torchvision.transforms.v2
MEAN, STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # normalises to 0..255, fit for comparing pixels


def built(name, **overrides):
    config = OmegaConf.load(PROJECT_ROOT / "conf" / "augmentation" / f"{name}.yaml")
    return instantiate(config, **overrides, _execution_whitelist_=["cifar_tuning.*", "torchvision.*"])


def batches(augmentation, images, labels=None, **options):
    labels = torch.arange(len(images)) if labels is None else labels
    usual = {"batch_size": 8, "mean": MEAN, "std": STD, "seed": 0}
    return TrainBatches(images, labels, augmentation=augmentation, **usual | options)


def epoch_of(augmentation, images, *, epoch=0, **options):
    xs, ys = zip(*batches(augmentation, images, **options).epoch(epoch), strict=True)
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
    assert [type(t) for t in trivial.transforms] == [v2.RandomCrop, v2.RandomHorizontalFlip, v2.TrivialAugmentWide]


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
        ({"flip": "alternating", "cutout": 16}, []),
        ({"cutout": -1}, ["augmentation.cutout=-1: must be a whole number, 0 or above"]),
        ({"cutout": 0.5}, ["augmentation.cutout=0.5: must be"]),
    ],
)
def test_crop_flip_names_every_problem(settings, problems):
    found = problems_with(CropFlip, settings)
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


@pytest.mark.parametrize("of", [v2, torchvision.transforms])
def test_normalising_twice_is_refused(of):
    normalize = of.Normalize((0.5,) * 3, (0.25,) * 3)
    for one in (normalize, of.Compose([v2.ToImage(), v2.RandomApply([normalize])])):
        with pytest.raises(ValueError, match=r"augmentation\.transforms\[1\]: Normalize would .* a second time"):
            TransformsV2([v2.RandomCrop(32), one])


def test_transforms_equal_torchvision_by_hand(images):
    x, y = epoch_of(TransformsV2([v2.RandomHorizontalFlip(p=1.0), v2.Pad(2), v2.CenterCrop(32)]), images)
    assert torch.equal(x, images[y].flip(2).permute(0, 3, 1, 2).float())


def test_float_results_count_as_0_to_1(images):
    x, y = epoch_of(TransformsV2([v2.ToDtype(torch.float32, scale=True)]), images)
    torch.testing.assert_close(x, images[y].permute(0, 3, 1, 2).float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "transforms",
    [
        [v2.RandomCrop(32, padding=4), v2.TrivialAugmentWide()],
        [v2.ToDtype(torch.float32, scale=True), v2.GaussianNoise(sigma=0.5, clip=False)],
        [v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(p=1.0, value="random")],
        [v2.ToDtype(torch.float32, scale=True), lambda image: image / image.std()],
    ],
)
def test_a_trial_of_transforms_leaves_right_ones_alone(transforms):
    before = torch.get_rng_state()
    TransformsV2(transforms).try_out((32, 32, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_transforms_draw_as_by_hand_and_leave_other_devices_generators_alone(images, monkeypatch):
    crop, seeds = v2.RandomCrop(32, padding=4), epoch_bits(0, 0, AUGMENTATION_STREAM, len(images)) >> np.uint64(1)
    others = MagicMock()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", others)
    x, y = epoch_of(TransformsV2([crop]), images)
    assert not others.called
    for made, place, seed in zip(x, y, seeds.tolist(), strict=True):
        torch.manual_seed(seed)
        assert torch.equal(made, crop(images[place].permute(2, 0, 1)).float())


def test_a_transform_that_changes_the_shape_is_named(images):
    with pytest.raises(ValueError, match=r"must keep its shape 3×H×W, but became \(3, 16, 16\)"):
        epoch_of(TransformsV2([v2.Resize(16)]), images)


def test_alternating_flips_show_every_image_from_both_sides_in_two_epochs(images):
    augmentation = CropFlip(padding=0, flip="alternating")
    sides = []
    for epoch in (1, 2, 3):
        x, y = epoch_of(augmentation, images, epoch=epoch, batch_size=7, seed=1)
        upright = images[y].permute(0, 3, 1, 2).float()
        flipped = (x == upright.flip(3)).flatten(1).all(1)
        assert torch.equal(flipped, ~(x == upright).flatten(1).all(1))
        sides.append(flipped[y.argsort()])
    first, second, third = sides
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert abs(augmentation.draw(1000, seed=1, epoch=1).flip.mean() - 0.5) < 0.05
    other, y = epoch_of(augmentation, images, epoch=1, seed=2)
    assert not torch.equal(
        first, (other == images[y].permute(0, 3, 1, 2).flip(3).float()).flatten(1).all(1)[y.argsort()]
    )


@pytest.mark.parametrize("side", [1, 5, 16, 64])
def test_cutout_is_a_square_of_the_mean_colour_that_may_leave_the_image(images, side):
    train = batches(CropFlip(padding=0, flip=False, cutout=side), images, mean=(0.2, 0.4, 0.6))
    centres = set()
    for batch, y in train.epoch(1):
        pixels = (batch.permute(0, 2, 3, 1) + 255 * torch.tensor([0.2, 0.4, 0.6])).round()
        for image, label in zip(pixels, y, strict=True):
            cut = (image == torch.tensor([51.0, 102.0, 153.0])).all(2)
            assert torch.equal(image[~cut], images[label][~cut].float())
            rows, columns = cut.any(1).nonzero().flatten(), cut.any(0).nonzero().flatten()
            inside = cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert inside.all()
            assert all(len(lines) == side or 0 in lines or 31 in lines for lines in (rows, columns))
            assert all((side + 1) // 2 <= len(lines) <= side or side > 32 for lines in (rows, columns))
            centres.add((int(rows[0]), int(columns[0])))
    assert len(centres) > 1 or side == 64


def test_mixup_mixes_a_batch_with_itself_in_reverse(images):
    labels = torch.arange(20) % 4
    plain = batches(NoAugmentation(), images, labels)
    mixed = batches(NoAugmentation(), images, labels, mixup=0.5, classes=4)
    shares = []
    for (x, y), (mixed_x, mixed_y) in zip(plain.epoch(1), mixed.epoch(1), strict=True):
        assert mixed_x.is_contiguous(memory_format=torch.channels_last)
        one_hot = torch.eye(4)[y]
        # the pair of first and last is of different classes, or else tells nothing
        share = ((mixed_x - x.flip(0)) * (x - x.flip(0))).sum() / ((x - x.flip(0)) ** 2).sum()
        shares.append(round(share.item(), 4))
        torch.testing.assert_close(mixed_x, share * x + (1 - share) * x.flip(0), rtol=0, atol=1e-2)
        torch.testing.assert_close(mixed_y, share * one_hot + (1 - share) * one_hot.flip(0), rtol=0, atol=1e-4)
    assert len(set(shares)) == 3
    assert all(0 <= share <= 1 for share in shares)
    again = [y for _, y in mixed.epoch(1)]
    assert all(torch.equal(a, b) for a, (_, b) in zip(again, mixed.epoch(1), strict=True))


def test_the_shares_of_mixup_are_beta_distributed(images):
    train = batches(NoAugmentation(), images[:1].expand(4000, -1, -1, -1), batch_size=1, mixup=0.3, classes=2)
    shares = np.array(train._shares(1))
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * 1.6)) < 0.01  # of Beta(α, α): 1 / (4 (2α + 1))


def test_mixup_needs_the_number_of_classes(images):
    with pytest.raises(ValueError, match="classes=0: mixup must know"):
        batches(NoAugmentation(), images, mixup=0.2)


def test_images_have_the_side_of_their_epoch(images):
    train = batches(CropFlip(), images, side=lambda epoch: (16, 16) if epoch < 3 else (32, 32))
    for epoch, side in ((1, 16), (2, 16), (3, 32)):
        for x, _ in train.epoch(epoch):
            assert x.shape[1:] == (3, side, side)
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_smaller_images_are_averages_of_the_whole_ones(images):
    x, y = epoch_of(NoAugmentation(), images, epoch=1)
    small_x, small_y = epoch_of(NoAugmentation(), images, epoch=1, side=lambda epoch: (16, 16))
    assert torch.equal(y, small_y)
    # Of what halves a side with antialiasing the weights are a triangle's: 1, 3, 3, 1.
    triangle = torch.tensor([1.0, 3, 3, 1]) / 8
    kernel = (triangle[:, None] * triangle).expand(3, 1, 4, 4)
    inner = torch.nn.functional.conv2d(x, kernel, stride=2, padding=1, groups=3)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(small_x[:, :, 1:-1, 1:-1], inner, rtol=0, atol=1e-2)
