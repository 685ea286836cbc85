"""Dataclasses that go to another process as plain data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from reasoning_lab.config.identity import as_plain
from reasoning_lab.config.targets import TRUSTED_VARIABLE, from_plain
from reasoning_lab.types import Split, UserError


@dataclass(frozen=True)
class Part:
    place: Path
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class SpecialPart(Part):
    note: str = ""


@dataclass(frozen=True)
class Whole:
    part: Part
    split: Split
    parts: dict[str, Part] = field(default_factory=dict)
    other: Part | None = None
    level: str | int = "easy"
    levels: dict[str, str | int | None] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=lambda: {"default": 1})


def test_types_come_back_through_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subclasses, paths, numbers as keys; a default of a mapping does not come back."""
    monkeypatch.setenv(TRUSTED_VARIABLE, "tests")
    whole = Whole(
        part=SpecialPart(Path("a"), (1e-5, 2.0), "x"),
        split=Split.TEST,
        parts={"b": Part(Path("c"))},
        level=2,
        levels={"a": 1, "b": "1", "c": None},
        options={"levels": {1: "easy"}, "words": ["one", "two"]},
    )
    plain = yaml.safe_load(yaml.safe_dump(as_plain(whole, tagged=object)))
    assert from_plain(Whole, plain) == whole


def test_a_class_that_nobody_trusts_is_refused() -> None:
    with pytest.raises(UserError, match="may not be named"):
        from_plain(Part, {"_class_": "os.PathLike", "place": "a"})
