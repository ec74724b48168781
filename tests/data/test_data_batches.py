"""Order, augmentation and normalisation of whole batches, against torchvision's way, image by image."""

import random

import numpy as np
import pytest
import torch

from benchmarks.usual import ImageDataset
from cifar_tuning import devices
from cifar_tuning.data import CIFAR10, CropFlip, EvalBatches, NoAugmentation, TrainBatches, TransformsV2
from cifar_tuning.data import batches as made_here
from cifar_tuning.data.augmentation import Plan
from cifar_tuning.data.batches import shared_on_device
from cifar_tuning.torchvision_compat import torchvision

transforms = torchvision.transforms
F = transforms.functional
MEAN, STD = CIFAR10.mean, CIFAR10.std
N = 50


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (N, 32, 32, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def labels():
    return torch.arange(N)  # a label of its own shows which image went where


def batches(images, labels, augmentation=None, **options):
    usual = {"batch_size": 16, "mean": MEAN, "std": STD, "seed": 0}
    return TrainBatches(images, labels, augmentation=augmentation or NoAugmentation(), **usual | options)


def whole_epoch(train, epoch=0):
    xs, ys = zip(*train.epoch(epoch), strict=True)
    return torch.cat(xs), torch.cat(ys)


def one_by_one(dataset, padding, draws, index, place):
    """The augmented PIL image, by torchvision's functions and the given offsets."""
    image, _ = dataset[index]
    if draws.flip[place]:
        image = F.hflip(image)
    return F.crop(F.pad(image, padding), int(draws.top[place]), int(draws.left[place]), 32, 32)


normalized = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


@pytest.mark.parametrize("padding", [0, 1, 4, 32])
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch_size", [1, 16, 50, 64])
def test_batches_equal_torchvision_image_by_image(images, labels, padding, flip, batch_size):
    augmentation = CropFlip(padding=padding, flip=flip)
    train = batches(images, labels, augmentation, batch_size=batch_size, seed=3)
    dataset = ImageDataset(images, labels)
    draws, order = augmentation.draw(N, seed=3, epoch=2), train.order(2)
    expected = [one_by_one(dataset, padding, draws, index, place) for place, index in enumerate(order)]

    augment = augmentation.start(Plan(N, batch_size, (32, 32, 3), 3, 2, torch.device("cpu")))
    ordered = images[torch.from_numpy(order)]
    pixels = torch.cat([augment(part, batch) for batch, part in enumerate(ordered.split(batch_size))])
    assert torch.equal(pixels, torch.from_numpy(np.stack([np.asarray(image) for image in expected])))

    x, y = whole_epoch(train, 2)
    assert y.tolist() == order.tolist()
    torch.testing.assert_close(x, torch.stack([normalized(i) for i in expected]), rtol=0, atol=1e-6)


def test_without_augmentation_a_batch_is_the_plain_dataset(images, labels):
    x, y = whole_epoch(batches(images, labels))
    dataset = ImageDataset(images, labels, normalized)
    torch.testing.assert_close(x, torch.stack([dataset[i][0] for i in y.tolist()]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("prepared", [2, 3])
def test_an_epoch_that_was_made_ready_is_the_same(images, labels, prepared):
    train = batches(images, labels, CropFlip(), batch_size=16, seed=3)
    x, y = whole_epoch(train, 2)
    train.prepare(prepared)
    for _ in range(2):
        again, order = whole_epoch(train, 2)
        assert torch.equal(again, x)
        assert torch.equal(order, y)


def test_crops_and_flips_are_uniform():
    draws = CropFlip(padding=4, flip=0.25).draw(90_000, seed=0, epoch=0)
    for offsets in (draws.top, draws.left):
        counts = np.bincount(offsets)
        assert len(counts) == 9
        assert abs(counts - 10_000).max() < 500  # five standard deviations
    assert abs(draws.flip.mean() - 0.25) < 0.008
    assert abs(np.corrcoef([draws.top, draws.left, draws.flip]) - np.eye(3)).max() < 0.02


TRANSFORMS = TransformsV2([transforms.v2.RandomCrop(32, padding=4), transforms.v2.TrivialAugmentWide()])


@pytest.mark.parametrize("augmentation", [NoAugmentation(), CropFlip(), TRANSFORMS], ids=["none", "crop_flip", "v2"])
def test_seed_and_epoch_alone_decide_and_nothing_else_is_drawn(images, labels, augmentation):
    def run(seed, epoch, size=16, rows=None):
        return whole_epoch(batches(images, labels, augmentation, seed=seed, batch_size=size, rows=rows), epoch)

    before = torch.get_rng_state()
    x, y = run(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    for other in (run(0, 0), run(0, 0, size=7), run(0, 0, size=64), run(0, 0, rows=torch.arange(N))):
        assert torch.equal(x, other[0])
        assert torch.equal(y, other[1])
    for seed, epoch in ((0, 1), (1, 0), (1, 1)):
        other = run(seed, epoch)
        assert not torch.equal(y, other[1])
        assert isinstance(augmentation, NoAugmentation) or not torch.equal(x[y.argsort()], other[0][other[1].argsort()])
    train = batches(images, labels, augmentation)
    list(train.epoch(7))  # epochs can be taken in any order and left half-way
    next(train.epoch(3))
    assert torch.equal(whole_epoch(train)[0], x)


@pytest.mark.parametrize("augmentation", [CropFlip(), TRANSFORMS], ids=["crop_flip", "v2"])
def test_each_image_has_its_own_draws(images, labels, augmentation):
    (first, _), *_ = batches(images[:1].expand(N, -1, -1, -1), labels, augmentation, batch_size=N).epoch(0)
    assert len({image.numpy().tobytes() for image in first}) > 40  # of 162 possible crops


def test_order_is_pinned():
    # The bits are frozen by NumPy; a change here makes old runs irreproducible.
    train = batches(torch.zeros(8, 32, 32, 3, dtype=torch.uint8), torch.arange(8))
    assert [train.order(epoch).tolist() for epoch in (0, 1)] == [[3, 2, 1, 6, 0, 7, 4, 5], [7, 4, 5, 1, 6, 2, 0, 3]]
    draws = CropFlip().draw(4, seed=0, epoch=0)
    assert (draws.top.tolist(), draws.left.tolist(), draws.flip.tolist()) == (
        [3, 7, 5, 4],
        [1, 6, 8, 6],
        [False, True, False, False],
    )


def test_order_does_not_depend_on_the_augmentation(images, labels):
    orders = [whole_epoch(batches(images, labels, each))[1] for each in (NoAugmentation(), CropFlip())]
    assert torch.equal(*orders)


def test_batches_kept_by_the_caller_stay_as_they_were(images, labels):
    train = batches(images, labels, CropFlip())
    copies = [x.clone() for x, _ in train.epoch(0)]
    assert all(torch.equal(kept, copy) for (kept, _), copy in zip(list(train.epoch(0)), copies, strict=True))


@pytest.mark.parametrize("batch_size", [1, 16, 25, 50, 64])
def test_shapes_and_the_last_batch(images, labels, batch_size):
    train = batches(images, labels, CropFlip(), batch_size=batch_size)
    drawn = list(train.epoch(0))
    sizes = [len(y) for _, y in drawn]
    assert len(drawn) == len(train) == -(-N // batch_size)
    assert sizes[:-1] == [batch_size] * (len(train) - 1)
    assert sum(sizes) == N
    for x, y in drawn:
        assert (x.shape, x.dtype, y.dtype) == ((len(y), 3, 32, 32), torch.float32, torch.int64)
        assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("options", [{}, {"mixup": 0.5}, {"side": lambda epoch: (16, 16)}], ids=["", "mixup", "side"])
@pytest.mark.parametrize(
    "augmentation", [NoAugmentation(), CropFlip(cutout=8), CropFlip(flip="alternating")], ids=["none", "cut", "flip"]
)
def test_batches_that_are_made_as_one_are_those_made_one_by_one(
    images, labels, monkeypatch, batch_size, options, augmentation
):
    made = []
    for where in (("cuda",), ("cuda", "cpu")):
        monkeypatch.setattr(devices, "QUEUES", where)
        monkeypatch.setattr(made_here, "AHEAD", 30)
        train = batches(images, labels, augmentation, batch_size=batch_size, classes=N, seed=3, **options)
        made.append(list(train.epoch(2)))
    for one, other in zip(*made, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Planned(NoAugmentation):
    def start(self, plan):
        self.made_at_once = plan.batch_size
        return super().start(plan)


@pytest.mark.parametrize(("side", "batch_size", "expected"), [(28, 128, 2048), (64, 128, 512), (224, 16, 32)])
def test_of_large_images_fewer_are_made_at_once(monkeypatch, side, batch_size, expected):
    """2,048 images of 224 pixels would take gigabytes of a GPU's memory."""
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    one, several = torch.zeros((1, side, side, 3), dtype=torch.uint8), torch.zeros(3000, dtype=torch.int64)
    train = batches(one, several, Planned(), batch_size=batch_size, rows=several)
    train.prepare(1)
    assert train.augmentation.made_at_once == expected


def test_rows_choose_among_the_stored_images(images, labels):
    rows = torch.tensor([9, 3, 3, 40, 0])
    x, y = whole_epoch(batches(images, labels[:5], rows=rows, batch_size=2))
    expected, order = whole_epoch(batches(images[rows], labels[:5], batch_size=2))
    assert torch.equal(x, expected)
    assert torch.equal(y, order)


def test_the_images_are_neither_copied_nor_changed(images, labels):
    before = images.clone()
    train = batches(images, labels, CropFlip())
    whole_epoch(train)
    assert train._images.data_ptr() == images.data_ptr()
    assert torch.equal(images, before)


@pytest.mark.parametrize("rows", [None, torch.arange(N - 1, -1, -1)], ids=["all", "reversed"])
def test_evaluation_is_in_order_and_repeatable(images, labels, rows):
    evaluation = EvalBatches(images, labels, batch_size=16, mean=MEAN, std=STD, rows=rows)
    for _ in range(2):
        xs, ys = zip(*evaluation, strict=True)
        assert len(xs) == len(evaluation) == 4
        assert torch.equal(torch.cat(ys), labels)
        dataset = ImageDataset(images if rows is None else images[rows], labels, normalized)
        expected = torch.stack([dataset[index][0] for index in range(N)])
        torch.testing.assert_close(torch.cat(xs), expected, rtol=0, atol=1e-6)
        assert xs[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.arange(3)}, "50 images but 3 labels"),
        ({"rows": torch.arange(3)}, "3 images but 50 labels"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"images": torch.zeros(N, 3, 32, 32)}, "must be uint8"),
    ],
)
def test_what_does_not_fit_is_refused(images, labels, change, message):
    with pytest.raises(ValueError, match=message):
        batches(**{"images": images, "labels": labels, **change})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_same_batches_without_ever_being_waited_for(images, labels):
    train = batches(images, labels, CropFlip(), device="cuda")
    x, y = whole_epoch(train)
    on_cpu = whole_epoch(batches(images, labels, CropFlip()))
    torch.testing.assert_close(x.cpu(), on_cpu[0], rtol=0, atol=1e-6)
    assert torch.equal(y.cpu(), on_cpu[1])
    epoch = train.epoch(1)
    next(epoch)  # the transfers at an epoch's start are allowed
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(1 for _ in epoch) == len(train) - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_share_the_images_on_their_device():
    """Where `meta` stands for a GPU."""
    images, other, device = torch.zeros(4, 6, dtype=torch.uint8), torch.ones(4, 6), torch.device("meta")
    first = shared_on_device(images, device)
    assert first.device == device
    assert shared_on_device(images.view(4, 6), device) is first
    assert shared_on_device(other, device) is not first
    assert shared_on_device(images, torch.device("cpu")) is images
