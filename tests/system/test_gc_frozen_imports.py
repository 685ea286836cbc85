"""What is imported to stay is out of the collector's sight; nothing else is."""

import gc
import importlib
import sys
from pathlib import Path

import pytest

from reasoning_lab.system.gc_frozen_imports import lasting


def test_what_is_imported_is_never_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weighty_module.py").write_text("held = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with lasting():
        assert not gc.isenabled()
        held = importlib.import_module("weighty_module").held
    del sys.modules["weighty_module"]
    assert gc.isenabled()
    assert not any(each is held for each in gc.get_objects())


def test_where_nothing_is_imported_nothing_is_kept() -> None:
    held = [[]]
    with lasting():
        importlib.import_module("json")
    assert any(each is held for each in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), lasting():
        importlib.import_module("no_such_module")
    assert gc.isenabled()
