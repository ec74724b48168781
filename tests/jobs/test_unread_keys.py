"""Keys that nothing reads: which are mistakes, which are warned of, and which are the user's own."""

import pytest
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.jobs.unread_keys import READ, key_problems, key_warnings


def test_what_is_read_is_what_the_configuration_has(configure):
    assert set(configure()) | {"hydra"} == READ
    assert READ & set(OmegaConf.load(PROJECT_ROOT / "conf" / "config.yaml")) == {
        *("seed", "resume", "objective", "published", "hydra")
    }


@pytest.mark.parametrize(
    ("overrides", "problem", "warning"),
    [
        ([], "", ""),
        (["+epochs=3"], "epochs=3: nothing reads it; did you mean trainer.epochs?", ""),
        (["+epochs=3", "schedule=cosine"], "did you mean trainer.epochs?", ""),
        (["+weight_decay=0.1"], "did you mean optimizer.weight_decay? optimizer=adamw has it", ""),
        (["+experiment.optimizer.lr=1"], "the file's first line must be `# @package _global_`", ""),
        (["+width=64"], "", "width: nothing here refers to this key"),
        (["+optimiser.lr=1"], "", "; did you mean optimizer?"),
        (["+width=64", "+model.width=${width}"], "", ""),
        (["+lr=0.1", "optimizer.lr=${oc.select:lr,1}"], "", ""),
        (["+lr=0.1", "optimizer.lr=${..lr}"], "", ""),
        (["+own.width=64", "+own.other=[1,'${own.width}']"], "", ""),
    ],
)
def test_keys_that_nothing_reads(configure, overrides, problem, warning):
    cfg = configure(*overrides)
    for found, expected in ((key_problems(cfg), problem), (key_warnings(cfg), warning)):
        assert bool(found) == bool(expected), found
        assert expected in "".join(found)


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_an_overlay_without_its_header(tiny, tmp_path, mode):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("optimizer:\n  lr: 0.5\n")
    outcome = tiny(*mode, "--config-dir", str(tmp_path), "experiment=mine", "+epochs=3", "+widht=3")
    assert outcome.code == 1
    assert "2 problems in the configuration; nothing was run." in outcome.err
    assert "experiment=mine: its options lie below the key experiment, where nothing reads them" in outcome.err
    assert "epochs=3: nothing reads it; did you mean trainer.epochs?" in outcome.err
    assert outcome.err.count("warning: widht: nothing here refers to this key") == 1
