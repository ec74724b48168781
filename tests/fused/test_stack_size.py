"""How jobs are grouped, and how large a stack gets."""

import json

import pytest
import torch

from cifar_tuning.fused import grouping, size
from cifar_tuning.fused.launch import next_job
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.training.measurement_cache import cache_file


def config(**options) -> dict:
    base = {"seed": 0, "model": {"_target_": "M", "dropout": 0.0}, "optimizer": {"_target_": "SGD", "lr": 0.1}}
    return (
        base | {"trainer": {"epochs": 3, "precision": "fp32", "device": "cpu"}, "data": {"batch_size": 128}} | options
    )


def test_jobs_are_grouped_by_what_must_agree():
    free = {"label_smoothing": 0.1, "patience": 2, "ema_decay": 0.9, "max_grad_norm": 1.0, "class_weights": "balanced"}
    jobs = {
        4: config(),
        5: config(seed=1, optimizer={"_target_": "Adam", "betas": [0.9, 0.99]}),
        6: config(model={"_target_": "M", "dropout": 0.5}),
        7: config(model={"_target_": "M", "dropout": 0.0, "activation": "swish"}),
        8: config(trainer={"epochs": 9, "precision": "fp32", "device": "cpu", **free}),
        9: config(trainer={"epochs": 3, "precision": "fp32", "device": "cuda"}),
        10: config(data={"batch_size": 64}),
    }
    groups = grouping.group(jobs)
    assert [one.jobs for one in groups] == [[4, 5, 6, 8], [7], [9], [10]]
    assert grouping.differences(groups) == [
        {"data.batch_size": "128", "trainer.device": "'cpu'"},
        {"data.batch_size": "128", "model.activation": "'swish'", "trainer.device": "'cpu'"},
        {"data.batch_size": "128", "trainer.device": "'cuda'"},
        {"data.batch_size": "64", "trainer.device": "'cpu'"},
    ]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([config(), config(seed=1)], ""),
        ([config(), config(data={"batch_size": 64})], "2 groups, because only models of one structure can be stacked"),
        ([{"x": 1.0}, {"x": 2.0}], "No job's configuration builds a model"),
        ([{"x": 1.0, "model": "mine"}], "No job's configuration builds a model"),
        ([], ""),
    ],
)
def test_the_log_says_why_jobs_are_not_one_stack(jobs, said, caplog):
    with caplog.at_level("INFO"):
        grouping.describe(grouping.group(dict(enumerate(jobs))))
    assert "".join(caplog.messages[:1]).startswith(said)
    assert bool(caplog.messages) == bool(said)


@pytest.mark.parametrize(
    ("jobs", "largest", "stacks"),
    [(8, 8, [8]), (10, 8, [5, 5]), (3, 8, [3]), (17, 8, [6, 5, 6]), (5, 1, [1] * 5), (1, 4, [1])],
)
def test_stacks_are_of_equal_size(jobs, largest, stacks):
    parts = size.split(list(range(jobs)), largest)
    assert [len(part) for part in parts] == stacks
    assert [job for part in parts for job in part] == list(range(jobs))


@pytest.mark.parametrize(
    ("jobs", "limit", "sizes"),
    [
        (6, 100, [1, 2, 3, 6]),
        (8, 8, [1, 2, 4, 8]),
        (8, 5, [1, 2, 4]),
        (1, 9, [1]),
        (200, 300, [1, 2, 4, 7, 13, 25, 50]),
    ],
)
def test_which_sizes_are_tried(jobs, limit, sizes):
    assert size.candidates(jobs, limit) == sizes


@pytest.mark.parametrize(
    ("rates", "jobs", "chosen"),
    [
        ({1: 100, 2: 150, 3: 190, 5: 400, 10: 210, 20: 300}, 20, 5),
        ({1: 100, 2: 150, 3: 220, 6: 200}, 6, 3),
        ({1: 100, 2: 150, 3: 220, 6: 212}, 6, 6),
        ({1: 100, 2: 150, 3: 220, 6: 280}, 6, 6),
        ({1: 100, 2: 104, 3: 85, 5: 88, 10: 300, 20: 300}, 20, 1),
        ({1: 100, 2: 80, 4: 300}, 4, 4),
        ({1: 100, 2: 80, 4: 70, 8: 300}, 8, 1),
        ({1: 100, 2: 112, 4: 107}, 4, 2),
    ],
    ids=["best", "few_jobs", "as_fast", "all", "hardly_faster", "one_is_slow", "slower", "only_the_smaller_pays"],
)
def test_the_size_is_measured_once(make_run, monkeypatch, tmp_path, rates, jobs, chosen):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def rate(run, count, same_seed, shape):
        asked.append(count)
        return rates[count]

    monkeypatch.setattr(size, "_rate", rate)
    run = make_run(exact=False)
    assert size.choose(run, jobs, jobs, (16, 3, 32, 32)).size == chosen
    known = list(asked)
    assert size.choose(run, jobs, jobs, (16, 3, 32, 32)).size == chosen
    assert asked == known
    assert known[0] == 1
    (entry,) = json.loads(cache_file("stacks").read_text()).values()
    rounds = size.ROUNDS if chosen > 1 else size.SURE
    assert entry == {"rates": {str(count): rates[count] for count in known}, "rounds": rounds}
    assert len(known) == rounds * len(set(known))


def test_what_other_work_spoilt_is_measured_again(make_run, monkeypatch, tmp_path):
    """By the next command, where the first one took its time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "LONG", 0.0)
    rates = {1: 100, 2: 70, 4: 60, 8: 50}
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: rates[count])
    run = make_run(exact=False)
    assert size.choose(run, 8, 8, (16, 3, 32, 32)).size == 1
    rates = {1: 100, 2: 150, 4: 200, 8: 260}
    assert size.choose(run, 8, 8, (16, 3, 32, 32)).size == 8


def test_a_no_is_believed_after_four_rounds(make_run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "LONG", 0.0)
    asked = []
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: asked.append(count) or 100.0)
    for rounds in (2, 4, 4):
        assert size.choose(make_run(exact=False), 2, 2, (16, 3, 32, 32)).size == 1
        assert asked == [1, 2] * rounds


@pytest.mark.parametrize(
    ("shared", "apart", "plan"),
    [
        ({1: 100, 2: 180}, {1: 100, 2: 150, 3: 170, 6: 175}, size.Stacking(2, by_seed=True)),
        ({1: 100, 2: 150}, {1: 100, 2: 150, 3: 190, 6: 175}, size.Stacking(3)),
        ({1: 100, 2: 105}, {1: 100, 2: 80, 3: 80}, size.Stacking(1)),
    ],
    ids=["shared_batches_are_faster", "larger_stacks_are_faster", "neither_pays"],
)
def test_stacks_of_one_seed_compete_with_larger_ones(make_run, monkeypatch, tmp_path, shared, apart, plan):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: (shared if same_seed else apart)[count])
    assert size.choose(make_run(exact=False), 6, 2, (16, 3, 32, 32)) == plan


@pytest.mark.parametrize(
    ("plan", "stacks"),
    [
        (size.Stacking(3, by_seed=True), [[0, 2, 4], [1, 3]]),
        (size.Stacking(2, by_seed=True), [[0, 2], [4], [1, 3]]),
        (size.Stacking(4), [[0, 2], [4, 1, 3]]),
        (size.Stacking(8), [[0, 2, 4, 1, 3]]),
        (size.Stacking(1), [[0], [2], [4], [1], [3]]),
    ],
)
def test_which_jobs_share_a_stack(plan, stacks):
    seeds = {0: 7, 1: 8, 2: 7, 3: 8, 4: 7}
    waiting, made = [0, 2, 4, 1, 3], []
    while waiting:
        made.append([])
        while (job := next_job(waiting, made[-1], seeds, plan)) is not None:
            waiting.remove(job)
            made[-1].append(job)
    assert made == stacks


def test_memory_bounds_the_stack(make_run, monkeypatch):
    """What this process may have of it: a container's limit counts."""
    free = [40 * 2**20]
    monkeypatch.setattr(size.processes, "free_memory", lambda: free[0])
    few = size.affordable(make_run(exact=False), (64, 3, 32, 32))
    free[0] *= 10
    assert 1 <= few < size.affordable(make_run(exact=False), (64, 3, 32, 32)) <= 10 * few + 10


def test_memory_that_the_allocator_keeps_is_free(monkeypatch):
    """Reserved by what was trained before and not in use now; the driver counts it as taken."""
    amounts = {"mem_get_info": (100, 1000), "memory_reserved": 700, "memory_allocated": 50}
    for name, amount in amounts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, amount=amount: amount)
    assert size.free_memory(torch.device("cuda")) == 750


@pytest.mark.parametrize(("fitting", "sizes"), [(2, ["1", "2"]), (0, None)])
def test_a_measurement_that_runs_out_of_memory(make_run, monkeypatch, tmp_path, fitting, sizes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    emptied = []

    def rate(run, count, same_seed, shape):
        if count > fitting:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 100 * count

    monkeypatch.setattr(size, "_rate", rate)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    if sizes is None:
        with pytest.raises(NotStackableError, match="not even one run fits into the device's memory"):
            size.measured(make_run(exact=False), 8, False, (16, 3, 32, 32))
    else:
        assert list(size.measured(make_run(exact=False), 8, False, (16, 3, 32, 32))) == sizes
    assert emptied == [True]


def test_the_measurement_leaves_the_run_as_it_is(make_run):
    run = make_run(exact=False)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    generator = torch.get_rng_state()
    rates = size.measured(run, 4, False, (16, 3, 32, 32))
    assert rates.keys() >= {"1", "2"}
    assert all(rate > 0 for rate in rates.values())
    assert torch.equal(generator, torch.get_rng_state())
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])
