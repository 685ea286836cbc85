"""The commit of the lab's code, in repositories made for it."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.system import commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def copy_of(package: Path) -> Any:
    """The module as part of another package."""
    file = package / "system" / "commit.py"
    file.parent.mkdir(parents=True)
    shutil.copy(commit.__file__, file)
    (package / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("copied_commit", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkout_is_named_by_its_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    module = copy_of(tmp_path / "package")
    (tmp_path / "notes").write_text("")
    git(tmp_path, "add", "notes")
    git(tmp_path, "commit", "-m", "another thing")
    # The package lies in the repository and is no part of it.
    assert module.code_commit() is None
    module.code_commit.cache_clear()
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "the package")
    (tmp_path / "notes").write_text("changed")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert module.code_commit() == head
    module.code_commit.cache_clear()
    (tmp_path / "package" / "__init__.py").write_text("x = 1")
    assert module.code_commit() == f"{head} with changes"


def test_a_copy_without_a_repository_has_none(tmp_path: Path) -> None:
    assert copy_of(tmp_path / "package").code_commit() is None
