from concurrent.futures import ThreadPoolExecutor

from cifar_tuning.training import remembered


def test_what_several_measure_at_once_is_all_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as several:
        list(several.map(lambda i: remembered.remember("stacks", f"model {i}", {"1": i}), range(40)))
    assert remembered.recall("stacks") == {f"model {i}": {"1": i} for i in range(40)}


def test_a_measurement_is_remembered_while_another_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remembered, "PATIENCE", 0.1)
    with remembered.one_at_a_time("precision"):
        remembered.remember("precision", "model", "bf16")
    assert remembered.recall("precision") == {"model": "bf16"}


def test_a_damaged_file_is_measured_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remembered.remember("precision", "model", "bf16")
    remembered.cache_file("precision").write_text("{")
    assert remembered.recall("precision") == {}
    remembered.remember("precision", "other", "fp32")
    assert remembered.recall("precision") == {"other": "fp32"}
