import pytest

from cifar_tuning.jobs.process import TRUST_VARIABLE, trusted_targets


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("my_models.py", "", "my_models.*"),
        ("my_package/__init__.py", "", "my_package.*"),
        ("os.py", "", None),  # a file must not open the way to a module of Python's own
        ("not-a-module.py", "", None),
    ],
)
def test_the_users_own_modules_are_trusted(tmp_path, monkeypatch, name, content, expected):
    before = set(trusted_targets())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    added = set(trusted_targets()) - before
    assert added == ({expected} if expected else set())


def test_installed_packages_are_trusted_by_name(monkeypatch):
    assert "timm.*" not in trusted_targets()
    monkeypatch.setenv(TRUST_VARIABLE, " timm.*, my.package.make ,")
    assert {"timm.*", "my.package.make"} <= set(trusted_targets())


def test_what_is_not_trusted_is_not_called(tiny):
    outcome = tiny("~model", "+model={_target_:scipy.special.expit,x:1}")
    assert outcome.code != 0
    assert "scipy.special.expit" in outcome.err
    assert TRUST_VARIABLE in outcome.err
    assert "Traceback" not in outcome.err
