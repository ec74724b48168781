"""What must be known of torchvision's benchmark datasets before one of them is opened, or even here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_DIGITS = tuple("0123456789")
_GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class StandardSet:
    """A dataset of `torchvision.datasets`.

    Args:
        images: how many there are in "train" and in "test".
        side: of the images as they are published, in pixels.
        classes: names in the order of the labels.
        mean, std: of each channel of the training images as they are published, on the scale 0..1.
        files: what torchvision reads for "train" and for "test", below `data.root`.
        archives: what is published, for "train" and for "test", where torchvision looks for it below `data.root`.
        home: the page that leads to it.
        by_split: torchvision's class takes `split="train"` in place of `train=True`.
    """

    images: Mapping[str, int]
    side: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: Mapping[str, Sequence[str]]
    archives: Mapping[str, Sequence[str]]
    home: str
    by_split: bool = False

    def options(self, part: str) -> dict[str, object]:
        """Returns what torchvision's class is given for "train" or "test"."""
        return {"split": part} if self.by_split else {"train": part == "train"}

    def bordered(self, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and std of the training images within a black border.

        Args:
            size: of the images with it, in pixels.
        """
        share, channels = self.side**2 / size**2, zip(self.mean, self.std, strict=True)
        # E[x²] − E[x]², and black pixels add nothing to either.
        stds = tuple((share * (std**2 + mean**2) - (share * mean) ** 2) ** 0.5 for mean, std in channels)
        return tuple(mean * share for mean in self.mean), stds


def _like_mnist(name: str, home: str, classes: tuple[str, ...], mean: float, std: float) -> StandardSet:
    # torchvision wants all four, whatever it is to read.
    files = [f"{name}/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    archives = [f"{file}.gz" for file in files]
    return StandardSet(
        images={"train": 60_000, "test": 10_000},
        side=28,
        classes=classes,
        mean=(mean,) * 3,
        std=(std,) * 3,
        files={"train": files, "test": files},
        archives={"train": archives, "test": archives},
        home=home,
    )


_CIFAR100_FILES = [f"cifar-100-python/{name}" for name in ("train", "test", "meta")]

# By the names of torchvision's classes. MNIST's mean and std were computed anew from its images; the others are in
# common use, with these four digits.
STANDARD_SETS = {
    "CIFAR100": StandardSet(
        images={"train": 50_000, "test": 10_000},
        side=32,
        classes=tuple(_CIFAR100_CLASSES.split()),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        files={"train": _CIFAR100_FILES, "test": _CIFAR100_FILES},
        archives={"train": ["cifar-100-python.tar.gz"], "test": ["cifar-100-python.tar.gz"]},
        home="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "MNIST": _like_mnist("MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist/", _DIGITS, 0.1307, 0.3081),
    "FashionMNIST": _like_mnist(
        "FashionMNIST", "https://github.com/zalandoresearch/fashion-mnist", _GARMENTS, 0.2860, 0.3530
    ),
    "SVHN": StandardSet(
        images={"train": 73_257, "test": 26_032},
        side=32,
        classes=_DIGITS,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        files={"train": ["train_32x32.mat"], "test": ["test_32x32.mat"]},
        archives={"train": ["train_32x32.mat"], "test": ["test_32x32.mat"]},
        home="http://ufldl.stanford.edu/housenumbers/",
        by_split=True,
    ),
}
