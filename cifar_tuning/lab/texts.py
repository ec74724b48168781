"""What the page says that no run can change: its introduction, the tables' headings, how it is made."""

from dataclasses import dataclass

INTRODUCTION = """# Results

This project began with a lab report. Here it is repeated: the report's tables stand beside ours, and its statements
have a verdict where runs or counts can decide. The others are [listed](#not-judged).

**What is compared.** The report has one run a row. Ours are several runs that differ only in the seed (initial
weights, order and augmentation of the images). "Accuracy" is the highest of a run's epochs on 5,000 validation
images, as in the report.

**The verdicts** are computed from the numbers by fixed rules:

- *holds*, *holds in part*, *does not hold*: tests or counts decide;
- *within noise*: no difference can be told;
- *barely*: the verdict would be another one with p values corrected for the tests of all verdicts, which are those of
  the column "p, whole page";
- *one seed only*: single runs, which are no test. Their grids ask for no more until a GPU is there to train them;
- *incomplete*: runs that may change the verdict are still to come.

The column "by the last epoch" has the verdict if each run counts by its last epoch instead of its best one. It is
empty where no figure changes.

**The tests.** Differences are taken seed by seed, with 95 % intervals and p values of Student's paired t-test. Holm's
method corrects the p values for the comparisons that one verdict rests on. The intervals speak of other seeds, not of
other images: that an accuracy was measured on these 5,000 images, which by itself is a standard error of about 0.6
points, is not in them.

**Could a published run be one more of ours?** Where we have three runs or more, Student's t for one further value
answers this, once for each run of the report. Of the tables that such a run stands in, the least sure one counts, and
the p values are corrected for all runs.

**The test set.** On this page the test set is read by one configuration alone, the one with the best mean over its
seeds when all of lab 3 is trained: by each seed's best checkpoint, once (lab 3, past 90 %). Elsewhere ten more runs
read it: six of `resnet20_accuracy` ([performance.md](performance.md)) and four in the README. Nothing was chosen by
it.

**How far the figures can be trusted:**
"""
STATEMENTS = """The report's first section calls ten statements true or false. "True" and "False" below are its
answers, and the verdicts are about these answers.
"""
NOT_JUDGED = """## Not judged

What else the report says, and why it has no verdict here:

| the report says | why it is not judged |
|---|---|
| ResNet-20: augmentation and batch norm were critical | no network of ours lacks them |
| ResNet-20: 0.1 is the best learning rate with decay | other rates were trained without decay only |
| ResNet-20: all schedules reach 91 to 92 %, and 90 % after 50 to 100 epochs | ours have 25 epochs (see the table) |
| ResNet-20: L2 of 1e-4 is a good medium between 0 and 1e-2 | 1e-2 was trained with SimpleNN only |
| L1's weights have a single peak | the histograms show it, but only their width and their excess kurtosis are tested |
| Dropout costs computing time | the runs of one stack share their seconds |
| SimpleNN is too small for 90 % | that none of ours comes near is no proof |
| The reasons that it gives, such as local minima that a large rate steps over | nothing here measures them |
"""
QUICK = """# A quick look at the results

Two epochs of everything on a thousand images, to see how it works: **the numbers mean nothing**, and the texts speak
of the whole. docs/results.md has the results.
"""
HOW = """## How this page is made

| command | what it does |
|---|---|
| `make results` | trains what is missing, measures, draws the page; continues if it was stopped or killed |
| `make results ONLY=lab2_lr,lab2_l2` | trains and measures for these experiments only |
| `make results TRAIN=0` | draws the page from what is there |
| `make results AGAIN=1` | trains also what is in the CSV but not on this machine: everything from nothing |
| `make results QUICK=1` | two epochs of everything on few images, in multirun/quick; under a quarter of an hour |

The minutes below are those of the epochs, on the machine named above; those of runs trained in one stack are counted
once. Runs beyond those that a table asks for are longer trainings or further seeds. A run that two tables share is
trained for one of them."""


@dataclass(frozen=True)
class Section:
    """A table's section.

    Attributes:
        experiment: the table's overlay.
        heading: of the section.
        text: what the rows have in common.
        published_epochs: what the report trained for.
    """

    experiment: str
    heading: str
    text: str
    published_epochs: int = 30


SIMPLENN = "SimpleNN, 30 epochs, batch 128, SGD with momentum 0.9, learning rate 0.01, L2 1e-4"
AUGMENTED = "As the baseline, with crop and flip"
IMPROVED = "As the baseline, with crop and flip and batch norm"
RESNET = "ResNet-20, crop and flip, learning rate 0.1, L2 1e-4; schedules in proportion to the report's 200 epochs"
SECTIONS = (
    Section("lab1_baseline", "Lab 1 (g): the baseline", f"{SIMPLENN}."),
    Section(
        "lab1_decay", "Lab 1 (h): learning-rate decay", "The learning rate is multiplied by 0.1 every so many epochs."
    ),
    Section("lab2_augmentation", "Lab 2 (a): augmentation", "Random crops after padding by 4, and random flips."),
    Section("lab2_batch_norm", "Lab 2 (b): batch norm", f"{AUGMENTED}; batch norm after each convolution."),
    Section("lab2_bn_lr", "Lab 2 (b): batch norm and large learning rates", f"{AUGMENTED}."),
    Section(
        "lab2_swish",
        "Lab 2 (b): Swish",
        f"{IMPROVED}. The report's text says learning rate 0.1, its table 0.01: both were trained.",
    ),
    Section("lab2_lr", "Lab 2 (c): learning rates", f"{IMPROVED}."),
    Section(
        "lab2_l2",
        "Lab 2 (c): L2",
        f"{IMPROVED}. The report's text says learning rate 0.01, its table 0.1: both were trained. Its figures stand "
        "beside 0.01, because its table of learning rates has the same .7400 for 0.01 (with L2 1e-4), and .7012 for "
        "0.1.",
    ),
    Section("lab2_l1", "Lab 2 (bonus): L1 against L2", f"{IMPROVED}. L1 is a term of the loss."),
    Section(
        "lab3_resnet20", "Lab 3: ResNet-20", f"{RESNET}. According to the report, all schedules reach 91 to 92 %.", 200
    ),
    Section(
        "lab3_untried", "Lab 3: what the report did not try", f"{RESNET}, multiplied by 0.1 every 50 of them.", 200
    ),
    Section(
        "lab3_past_90",
        "Lab 3: past 90 %",
        "One cycle of 25 epochs, Nesterov, peak rate 0.2, Swish, label smoothing 0.1, small images first, crops by two "
        "pixels, alternating flips, L2 5e-4 except on batch norm. It was found by `study=resnet20_fast`.",
    ),
    Section("claim_bn_mean", "Batch norm's means", f"{IMPROVED}, 5 epochs. These are the networks of statement 1.1."),
    Section("claim_augmentation", "Augmentation that hurts", "The baseline, 10 epochs, on few images and on all."),
    Section("claim_dropout", "Dropout", "The baseline with dropout before each fully connected layer."),
    Section("claim_l2_dropout", "L2 and dropout", "The baseline with L2, dropout, both or neither."),
    Section("claim_leaky_relu", "Leaky ReLU", "The baseline, 15 epochs, ten seeds."),
    Section("claim_separable", "Depthwise separable convolutions", "ResNet-20, one cycle of 5 epochs, one seed."),
    Section(
        "claim_shortcut",
        "Shortcuts",
        "ResNet-20, one cycle of 10 epochs, one seed. Their loss surfaces are drawn below.",
    ),
)
