"""Options, addresses and errors as text."""

import shlex
import sys
import time
import timeit
from types import SimpleNamespace

import pytest

from cifar_tuning import PROJECT_ROOT, text
from cifar_tuning.overrides import parse_overrides
from cifar_tuning.text import (
    command_line,
    first_line,
    flatten,
    is_elsewhere,
    on_one_line,
    override,
    training_program,
    typed,
    without_password,
)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:se:cr@et@host:5432/db", "postgresql+psycopg2://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/a@b:c/optuna.db", "sqlite:////tmp/a@b:c/optuna.db"),
        ("http://a:b@one/ and http://c:d@two/", "http://a:***@one/ and http://c:***@two/"),
        ("postgresql://me@server:secret@host/db", "postgresql://me@server:***@host/db"),
        ("storage='mysql://me:se/c?r@host/db' x@y", "storage='mysql://me:***@host/db' x@y"),
        ("http://one:5000/a@b", "http://one:5000/a@b"),
        ("postgresql://h/d?user=me&sslpassword=a&password=b", "postgresql://h/d?user=me&sslpassword=***&password=***"),
        ("storage='postgresql://h/d?password=b' x", "storage='postgresql://h/d?password=***' x"),
        ("no address", "no address"),
    ],
)
def test_a_password_is_never_shown(given: str, shown: str) -> None:
    assert without_password(given) == shown


@pytest.mark.parametrize("piece", ["://", "postgresql://host:5432/db,"])
def test_a_long_text_without_spaces_is_searched_for_passwords_once(piece: str) -> None:
    few, many = (
        min(timeit.repeat(lambda text=piece * n: without_password(text), timer=time.process_time, number=1))
        for n in (500, 5000)
    )
    assert many < 40 * few


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        *[(key, True) for key in ("tracking.uri", "tracking", "resume", "trainer.device", "data.root")],
        *[(key, False) for key in ("data.rooted", "resume_rate", "trainer.devices", "trainer", "seed")],
    ],
)
def test_where_a_run_is_kept_is_told_by_whole_names(key: str, expected: bool) -> None:
    assert is_elsewhere(key) is expected


def test_nested_options_become_dotted_keys() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}, 3: None}
    assert dict(flatten(nested)) == {"a.b": 1, "a.c.d": [1, 2], "e": {}, "3": None}


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one \r\ntwo\n"), "one "),
        (ValueError(), "ValueError"),
        (KeyboardInterrupt(" \n"), "KeyboardInterrupt"),
        ("one\ntwo", "one"),
        ("", ""),
    ],
)
def test_an_error_s_first_line(error: BaseException | str, shown: str) -> None:
    assert first_line(error) == shown


def test_an_error_on_one_line_with_its_cause() -> None:
    error = ValueError("in 'config':\n  no such\tgroup")
    assert on_one_line(error) == "in 'config': no such group"
    error.__cause__ = KeyError("model\n")
    assert on_one_line(error) == "in 'config': no such group 'model\\n'"
    error.__cause__ = OSError("gone\naway")
    assert on_one_line(error) == "in 'config': no such group gone away"
    assert on_one_line(str(error)) == "in 'config': no such group"
    assert on_one_line(ValueError()) == ""


@pytest.mark.parametrize(
    ("typed", "program", "shown"),
    [
        ("train.py", "predict.py", "predict.py"),
        ("../train.py", "predict.py", "../predict.py"),
        ("/some where/train.py", "train.py", "'/some where/train.py'"),
        ("/some/app.py", "app.py", "/some/app.py"),
        ("/usr/bin/pytest", "train.py", "train.py"),
        ("", "train.py", "train.py"),
    ],
)
def test_commands_can_be_typed_where_this_one_was(monkeypatch, typed, program, shown):
    monkeypatch.setattr(sys, "argv", [typed])
    assert command_line(program, "run=/a b") == f"python {shown} 'run=/a b'"


def test_a_script_of_ones_own_trains_in_place_of_the_projects(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["my_train.py", "--config-dir=x"])
    assert command_line(training_program(), "a=2") == "python my_train.py --config-dir=x a=2"
    assert command_line("predict.py", "run=x") == f"python {PROJECT_ROOT}/predict.py run=x"
    module = tmp_path / "my_train.py"
    module.touch()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="mine.my_train", origin=module))
        assert command_line(training_program(), "a=2") == "python -m mine.my_train --config-dir=x a=2"
        assert command_line("predict.py", "run=x") == f"python {PROJECT_ROOT}/predict.py run=x"
    for ours in ("report.py", text.__file__, "/usr/bin/pytest", ""):
        monkeypatch.setattr(sys, "argv", [ours])
        assert training_program() == "train.py"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("simplenn/best", "experiment=simplenn/best"),
        ("a b/ü/best", 'experiment="a b/ü/best"'),
        ("sqlite:////tmp/m.db", None),
        ("http://me:***@host:5000", None),
        ("multirun/od/seed=1,model=resnet20", None),
        ("'it'/$x", None),
        ('a"b"', None),
        ("C:\\dir\\", None),
        ('\\"', None),
        ("a#b;c&d(e)[f]{g}", None),
        (" a ", None),
    ],
)
def test_overrides_that_hydra_understands(value, shown):
    (parsed,) = parse_overrides([override("experiment", value)])
    assert parsed.value() == value
    if shown is not None:
        assert override("experiment", value) == shown
    assert shlex.split(typed("experiment", value)) == [override("experiment", value)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--config-dir", "my configs", "-m", "a=1"], "python train.py --config-dir 'my configs' a=2"),
        (["-cn=mine", "-m", "--config-dir=x"], "python train.py -cn=mine --config-dir=x a=2"),
        (["-m", "a=1"], "python train.py a=2"),
        (["hydra.searchpath=[file://x]", "-m", "a=1"], "python train.py 'hydra.searchpath=[file://x]' a=2"),
        (["--config-dir=y", "+hydra.searchpath=[x]"], "python train.py --config-dir=y '+hydra.searchpath=[x]' a=2"),
    ],
)
def test_a_command_says_where_its_configuration_lies(typed, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    assert command_line("train.py", "a=2") == expected
    assert command_line("predict.py", "run=x") == "python predict.py run=x"
