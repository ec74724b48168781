"""What a command's words lack is told in the user's terms."""

from contextlib import nullcontext

import pytest

from cifar_tuning.errors import UserError
from cifar_tuning.jobs import command_words, other_words
from cifar_tuning.jobs.command_words import check_overrides


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train.py optimizer.lr 0.1", "optimizer.lr 0.1: no option; write OPTION=VALUE, .* such as optimizer.lr=0.1"),
        ("train.py -m optimizer.lr = 0.1 seed=1", "optimizer.lr =? ?0.1: no option"),
        ("train.py a=1 -cn mine ~model --config-dir conf x= --cfg job -p model ++b=2", None),
        ("train.py -m seed=1,2 hydra.sweeper.n_trials=3", "n_trials: of an Optuna study; add hydra/sweeper=study"),
        ("train.py -m a=1,2 hydra.sweeper.n_trials=3 hydra/sweeper=optuna hydra.sweeper.max_batch_size=2", None),
        ("my_train.py -m seed=1,2 hydra.sweeper.n_trials=3", None),
        ("train.py -m seed=1,2 hydra.sweeper.n_trials=3 experiment=mine", None),
        ("train.py -m seed=1,2 hydra.sweeper.n_trials=3 +mygroup=mine", None),
        ("train.py -m seed=1,2 hydra.sweeper.n_trials=3 --config-name=mine", None),
        # What a grid has, too.
        ("train.py -m seed=1,2 ~hydra.sweeper.params.seed", None),
        ("train.py -m seed=1,2 hydra.sweeper.max_batch_size=2", None),
        ("train.py -m seed=1,2 hydra.sweeper._target_=mine", None),
        ("train.py -m optimizer.lr=0.1,0.2 --cfg job", "--cfg is for a single run; leave out -m"),
        ("train.py -m optimizer.lr=0.1,0.2 --info config", "--info is for a single run; leave out -m"),
        (
            "train.py lr=0.1 activation=swish",
            r"optimizer\.lr=0.1, not lr=0.1\n  - model.activation=swish",
        ),
        ("train.py epochs=3", r"- trainer\.epochs=3, not"),  # the schedule is constant, which has none
        ("train.py decay_epochs=3", r"- schedule\.decay_epochs=3, not"),  # nor has it this, but no other part either
        ("train.py -m epochs=3 schedule=step,onecycle", r"- schedule\.epochs=3 or trainer\.epochs=3, not"),
        ("train.py seed=1 resume=outputs/demo published=null hydra.verbose=true", None),  # at the top of config.yaml
        ("train.py lr=0.1 experiment=mine", None),  # in which it may be
        ("train.py lr=0.1 +mygroup=mine", None),
        ("train.py +lr=0.1 optimizer.lr=${lr}", None),
        ("train.py lr=0.1 --config-dir mine", None),
        ("train.py -m study=simplenn n_trials=3", r"- hydra\.sweeper\.n_trials=3, not n_trials=3"),
        ("train.py -m study=mine n_trials=3", None),  # in which it may be
        ("train.py hparams_search=x max_epochs=3", r"study=simplenn, .* not hparams_search=x\n  - trainer\.epochs=3,"),
        (
            "train.py ckpt_path=a/b run_name=${model.name}",
            r"resume=a/b, .*\n  - tracking\.run_name=\$\{model\.name\}",
        ),
        (
            "train.py -m study=simplenn hydra.sweeper.early_stopping=3 hydra.sweeper.n_trial=4 hydra.sweeper.n_jobs=1",
            r"early_stopping=3: no .* hydra\.sweeper\.patience\?\n  - hydra.sweeper.n_trial=4: .*n_trials\?$",
        ),
        (
            "train.py -m hydra/sweeper=study hydra.sweeper.load_if_exists=true",
            "there is: the same command goes on",
        ),
        ("train.py -m hydra/sweeper=study +hydra.sweeper.own=1 hydra.sweeper.sampler.gamma=1", None),
        ("train.py -m study=simplenn hydra.sweeper.optimized_metric=x", "what there is: objective=…, without"),
        ("train.py -m hydra/sweeper=optuna hydra.sweeper.early_stopping=3", None),  # Hydra knows its options
        ("train.py nowhere=1", None),  # Hydra has a suggestion
        ("predict.py device=cpu", None),
        ("predict.py outputs/demo", "outputs/demo: no option; .* such as run=outputs/demo"),
        ("report.py tune", "tune: no option; .* such as sweep=multirun/tune"),
    ],
)
def test_what_is_no_option_is_told_before_hydra_reads_it(typed, said):
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_overrides(typed.split())


def test_every_word_of_elsewhere_leads_to_an_option():
    told = [meant for meant in other_words._OF_STUDIES.values() if meant.isidentifier()]
    assert set(told) <= set(other_words.OPTIONS)
    assert not other_words._OF_STUDIES.keys() & set(other_words.OPTIONS)


def test_the_main_configuration_may_choose_a_sweeper(monkeypatch):
    monkeypatch.setattr(command_words, "_main_config", lambda: "defaults:\n  - override hydra/sweeper: study\n")
    check_overrides(["train.py", "-m", "seed=1,2", "hydra.sweeper.n_trials=3"])
