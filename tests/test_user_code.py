"""What the user hears of mistakes in code of their own, and of names that it does not have."""

import importlib
import json
import sys

import pytest

from cifar_tuning.user_code import missing_module, missing_name, user_frame, user_traceback

MODULE = """
import json

class Wide:
    def __init__(self):
        self.forward()

    def forward(self):
        return json.loads("{")

def wrapped():
    try:
        Wide()
    except ValueError as error:
        raise RuntimeError("wrapped") from error
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_models")
    del sys.modules["my_models"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("my_model.Wide", "or the installed packages; did you mean my_models?"),
        ("nothing_like_it.Wide", "the project or the installed packages"),
        ("my_models.Wid", None),
        ("scipy.special.expit", None),
        ("__main__.run", None),
    ],
)
def test_a_module_that_is_not_there(module, target, said):
    found = missing_module(target)
    assert said is found or found.endswith(said)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("my_models.Wid", "my_models has no Wid; it has Wide, wrapped"),
        ("my_models.Wide", None),
        ("torch.optim.SDG", "torch.optim has no SDG; did you mean SGD?"),
        ("torch.optim.xyzzy", "torch.optim has no xyzzy"),
        ("torch.optim.sgd.SGD.nothing", None),
        ("torch.distributions.normal.Normal", None),
        ("not_imported.Wide", None),
    ],
)
def test_a_name_that_a_module_lacks(module, target, said):
    assert missing_name(target) == said


@pytest.mark.parametrize("called", ["Wide", "wrapped"])
def test_the_innermost_frame_of_the_users_own(module, called):
    with pytest.raises((ValueError, RuntimeError)) as raised:
        getattr(module, called)()
    error = raised.value.with_traceback(raised.tb.tb_next)  # this file is under the project's root
    assert user_frame(error) == ", my_models.py:9 in forward"
    shown = user_traceback(error)
    assert "json/decoder.py" not in shown
    assert 'my_models.py", line 9, in forward' in shown
    assert "JSONDecodeError: " in shown


def test_an_error_of_others_keeps_its_traceback():
    with pytest.raises(ValueError, match="property name") as raised:
        json.loads("{")
    error = raised.value.with_traceback(raised.tb.tb_next)
    assert user_frame(error) == ""
    assert user_traceback(error) is None
