"""Options and addresses as text."""

import pytest

from cifar_tuning.text import flatten, without_password


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:se:cr@et@host:5432/db", "postgresql+psycopg2://me:***@host:5432/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/a@b:c/optuna.db", "sqlite:////tmp/a@b:c/optuna.db"),
        ("http://a:b@one/ and http://c:d@two/", "http://a:***@one/ and http://c:***@two/"),
        ("no address", "no address"),
    ],
)
def test_a_password_is_never_shown(given: str, shown: str) -> None:
    assert without_password(given) == shown


def test_nested_options_become_dotted_keys() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}, 3: None}
    assert dict(flatten(nested)) == {"a.b": 1, "a.c.d": [1, 2], "e": {}, "3": None}
