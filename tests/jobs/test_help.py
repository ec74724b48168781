"""What `--help` says."""

import re
import shlex

import pytest
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.text import flatten


@pytest.mark.parametrize("program", ["predict", "report"])
def test_every_option_has_a_line(command, program):
    shown = command("--help", program=f"{program}.py").out
    config = OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / f"conf/{program}.yaml"), resolve=False)
    options = [key for key, _ in flatten(config) if not key.startswith(("hydra.", "defaults"))]
    assert re.findall(r"^  ([a-z_.]+)  ", shown, re.MULTILINE) == options
    assert len(re.findall(rf"^  python {program}.py .*=", shown, re.MULTILINE)) >= 2
    assert max(map(len, shown.splitlines())) <= 120
    assert "augmentation" not in shown


def test_the_examples_of_training_can_be_typed(configure):
    shown = OmegaConf.load(PROJECT_ROOT / "conf/config.yaml").hydra.help.template
    examples = re.findall(r"^  (python train.py .*=.*)$", shown, re.MULTILINE)[1:]
    assert len(examples) == 5
    for example in examples:
        arguments = shlex.split(example, comments=True)[2:]
        configure(*(one for one in arguments if one != "-m" and "," not in one))
    assert "$APP_CONFIG_GROUPS" in shown
