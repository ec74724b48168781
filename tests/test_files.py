"""Files written all or nothing."""

import os
import stat
from pathlib import Path

import pytest

from cifar_tuning.files import write_text, written


def test_a_text_takes_the_old_one_s_place_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    for text in ("1 × 1", "π"):
        assert write_text(file, text) == file
        assert file.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [file]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with written(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")
    assert file.read_text() == "new"


def _fail(file: Path, error: type[BaseException], begun: bool) -> None:
    with written(file) as partial:
        if begun:
            partial.write_text("ne")
        raise error("own")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("begun", [True, False])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException], begun: bool) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with pytest.raises(error, match="own"):
        _fail(file, error, begun)
    assert [(one, one.read_text()) for one in tmp_path.iterdir()] == [(file, "old")]


def test_a_folder_that_is_none_is_what_the_error_says(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(NotADirectoryError):
        write_text(tmp_path / "folder" / "result.json", "new")


def test_two_writers_have_a_path_each_though_their_processes_have_one_id(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with written(file) as first:
        first.write_text("first")
        with written(file) as second:
            second.write_text("second")
            assert second != first
        assert file.read_text() == "second"
    assert file.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_a_link_and_what_is_no_file_is_written_to(tmp_path):
    target, link, pipe = tmp_path / "target.csv", tmp_path / "link.csv", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "said")
    assert os.read(reader, 10) == b"said"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "pipe", "target.csv"]
