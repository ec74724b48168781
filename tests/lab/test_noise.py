import pytest

from cifar_tuning.lab.conclusions import conclusions
from cifar_tuning.lab.noise import check, peaks, reruns, sentences
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import HOLDS, NOISE

NORM = [("lab2_batch_norm", f"model.batch_norm={kind}") for kind in ("true", "false")]
# A lead of 1.0 ± 0.9 points (p = 0.04) over five seeds.
LEADS = [0.010, 0.002, 0.018, 0.005, 0.015]


def of(results, name):
    ((*_, found),) = [[one for one in check(results, conclusions)[0] if one.verdict.name == name]]
    return found


def test_a_verdict_is_barely_one_where_the_page_has_many_tests(make_results):
    rows = {NORM[0]: [0.7 + lead for lead in LEADS], NORM[1]: [0.7] * 5}
    alone = of(make_results(rows), "batch norm")
    assert (alone.outcome, alone.barely) == (HOLDS, False)
    others = {
        ("lab2_lr", f"optimizer.lr={rate}"): [0.7 + step * seed for seed in range(5)]
        for rate, step in (("0.01", 0.001), ("0.05", 0.002), ("0.1", -0.001))
    }
    together = of(make_results(rows | others), "batch norm")
    assert together.outcome == "holds, barely"
    assert together.verdict.outcome == HOLDS
    assert together.page_p == pytest.approx(3 * alone.page_p)


@pytest.mark.parametrize(("last", "by_last"), [([0.69, 0.71, 0.7, 0.7, 0.7], NOISE), ([0.72] * 5, HOLDS), (None, "")])
def test_a_verdict_is_asked_for_by_the_last_epoch_as_well(make_run, scale, last, by_last):
    """Only best epochs make batch norm better in the first case; in the last one the two are the same."""
    runs = [make_run(*NORM[1], seed, 0.7, final_val_acc=0.7 - 0.001 * (seed % 2) * bool(last)) for seed in range(5)]
    for seed, lead in enumerate(LEADS):
        runs.append(make_run(*NORM[0], seed, 0.7 + lead, final_val_acc=last[seed] if last else 0.7 + lead))
    assert of(Results(scale, runs, {}), "batch norm").by_last_epoch == by_last


def test_a_run_that_diverged_ends_at_chance(make_run, scale):
    runs = [make_run("lab2_lr", "optimizer.lr=1", 0, 0.13, state="diverged", final_val_acc=None)]
    assert [run.val_acc for run in Results(scale, runs, {}).by_last_epoch().runs] == [0.1]


def test_a_best_epoch_is_compared_with_its_neighbours(make_run, scale):
    curves = {"a": ([0.1, 0.60, 0.62, 0.65, 0.61, 0.61], 3), "b": ([0.1, 0.5, None, 0.2, 0.2, 0.2], 1)}
    runs = [
        make_run("lab2_lr", name, 0, max(filter(None, curve)), best_epoch=best)
        for name, (curve, best) in curves.items()
    ]
    results = Results(scale, runs, {run.key: {"val_acc": curves[run.configuration][0]} for run in runs})
    assert peaks(results) == pytest.approx((4.0, 35.0))
    assert peaks(Results(scale, runs, {})) is None


def test_runs_that_were_trained_again_are_compared_seed_by_seed(make_results):
    rows = {NORM[0]: [0.72, 0.73], ("lab2_lr", "optimizer.lr=0.01"): [0.72, 0.75, 0.7]}
    results = make_results(rows)
    assert reruns(results) == pytest.approx([0.0, 2.0])
    *_, sentence = sentences(results, [])
    assert "the same configuration and seed in two tables. Of 2 such pairs 1 differ, by 2.0" in sentence
    assert "uncertain by ± 1.8 points" in sentence
    assert sentences(make_results({}), []) == ["The verdicts rest on 0 tests."]
