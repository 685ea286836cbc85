"""Imported objects are frozen, and nothing else is."""

import gc
import importlib
import sys
from pathlib import Path

import pytest

from reasoning_lab.system.gc_frozen_imports import gc_frozen_imports


def test_imported_objects_are_never_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weighty_module.py").write_text("rows = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with gc_frozen_imports():
        assert not gc.isenabled()
        rows = importlib.import_module("weighty_module").rows
    del sys.modules["weighty_module"]
    assert gc.isenabled()
    assert not any(entry is rows for entry in gc.get_objects())


def test_without_a_new_module_nothing_is_frozen() -> None:
    rows: list[list[int]] = [[]]
    with gc_frozen_imports():
        importlib.import_module("json")
    assert any(entry is rows for entry in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), gc_frozen_imports():
        importlib.import_module("no_such_module")
    assert gc.isenabled()
