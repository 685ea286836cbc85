"""A few dozen rows of each dataset of a run, as a dataset of their own on this machine.

The rows keep the dataset's layout, so that they are read by the same code and the same mapping.
They come from a local copy, from the hub by streaming, or from what is shipped of the layout.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from huggingface_hub import constants

from reasoning_lab.config.components import SourceConfig
from reasoning_lab.data.sources.config import FileConfig, HubConfig, MixtureConfig
from reasoning_lab.data.sources.hub import hub_rows
from reasoning_lab.data.sources.layouts import assumed_rows, layout_rows
from reasoning_lab.data.sources.readers import file_rows
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.graph.record import digest
from reasoning_lab.types import UserError

# Rows that are looked at; of these those of a split, at least of a level, and that give no problem.
_READ_ROWS, _SPLIT_ROWS, _LEVEL_ROWS, _UNUSED_ROWS = 2000, 96, 32, 8
_ASK_TIMEOUT_S = 5.0
# Of the hub: one file's beginning.
_STREAMED_ROWS = 200
# A few dozen prompts are split by fractions that leave some of each.
_LEAST_FRAC = 0.2
# What every text keeps at least, so that it stays a text.
_LEAST_CHARACTERS = 240
# A line that a reader of the text looks for: marks of thoughts, the answer.
_KEPT_LINE = re.compile(r"<[|\w/:]+>|\[/?\w+\]|\\boxed|####|(?i:answer)")


def hub_answers() -> bool:
    """Whether the hub can be asked from here."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(constants.ENDPOINT, timeout=_ASK_TIMEOUT_S)
    except httpx.HTTPError:
        return False
    return True


class SampledSource(NamedTuple):
    """A source with a few of its rows.

    Attributes:
        cut: Its long texts are cut.
        whole: They are not.
    """

    cut: SourceConfig
    whole: SourceConfig


@dataclass(slots=True)
class Sampler:
    """Takes a few rows of each dataset.

    Attributes:
        folder: Where they are written.
        factor: By which long texts are cut.
        online: Whether the hub may be asked.
        levels: Those that the run asks for.
        notes: What is not as in a run, a sentence each.
        stand_ins: Keys of the data whose rows are made up.
    """

    folder: Path
    factor: float
    online: bool
    levels: Sequence[int]
    notes: list[str] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)

    def sampled(self, options: SourceConfig, key: str) -> "SampledSource":
        """The source with a few of its rows in place of all.

        Raises:
            UserError: The rows that are there cannot be read.
        """
        if isinstance(options, MixtureConfig):
            parts = {
                name: self.sampled(part, f"{key}.sources.{name}")
                for name, part in options.sources.items()
            }
            cut, whole = (
                _with_fractions(replace(options, sources=dict(zip(parts, of_kind, strict=True))))
                for of_kind in zip(*parts.values(), strict=True)
            )
            return SampledSource(cut, whole)
        if not isinstance(options, FileConfig | HubConfig):
            return SampledSource(options, options)
        rows, corrections = self._rows(options, key)
        table: FileConfig | HubConfig = _with_fractions(options)
        if isinstance(table, HubConfig):
            table = replace(table, streaming=False, corrections=corrections)
        cut_rows = {split: [_cut(row, self.factor) for row in of] for split, of in rows.items()}
        place = self.folder / re.sub(r"\W+", "-", key)
        return SampledSource(
            _written(table, place / "cut", cut_rows), _written(table, place / "whole", rows)
        )

    def _rows(
        self, options: FileConfig | HubConfig, key: str
    ) -> tuple[dict[str | None, list[dict[str, Any]]], dict[str, dict[str, str]]]:
        """Rows by the dataset's own split, and the corrections that hold for them."""
        corrections: dict[str, dict[str, str]] = getattr(options, "corrections", {})
        if isinstance(options, FileConfig) or options.path is not None:
            return self._local_rows(options), corrections
        assert isinstance(options, HubConfig)
        # What the hub refuses now, it would refuse the run.
        if self.online:
            return _dataset_rows(options, None, _STREAMED_ROWS), corrections
        self.stand_ins.append(key)
        absent = f"{key}: '{options.dataset}' is not on this machine"
        shipped = f"{absent}; made-up rows in its layout stand for it"
        rows: dict[str | None, list[dict[str, Any]]] = {}
        for split in options.splits.values():
            known = layout_rows(options.dataset, options.config, split, _SPLIT_ROWS)
            if known is None:
                name = f"{options.dataset} {split}"
                known = assumed_rows(options.rows, self.levels, name, _SPLIT_ROWS)
                shipped = (
                    f"{absent}, and its layout is not known; made-up rows with the columns that "
                    f"{key}.rows names stand for it"
                )
            elif not known:
                raise UserError(
                    f"{key}.splits: '{options.dataset}' has no split '{split}' in configuration "
                    f"{options.config}; correct {key}.config or {key}.splits"
                )
            rows[split] = known
        self.notes.append(shipped)
        return rows, {}

    def _local_rows(
        self, options: FileConfig | HubConfig
    ) -> dict[str | None, list[dict[str, Any]]]:
        path = Path(str(options.path))
        if not path.is_file():
            assert isinstance(options, HubConfig)
            return _dataset_rows(options, str(path), None)
        read = file_rows(path=str(path), content="", used=_columns(options))
        return {None: _selected((row.content for row in islice(read, _READ_ROWS)), options)}


def _columns(options: FileConfig | HubConfig) -> list[str]:
    level = options.rows.level
    return [*options.rows.columns(), *([level] if isinstance(level, str) else [])]


def _dataset_rows(
    options: HubConfig, folder: str | None, first_rows: int | None
) -> dict[str | None, list[dict[str, Any]]]:
    """Rows of each split, of a folder or of the hub.

    Raises:
        UserError: It cannot be reached, or lacks the dataset or the split.
    """
    rows: dict[str | None, list[dict[str, Any]]] = {}
    for split, name in options.splits.items():
        read = hub_rows(
            options.dataset,
            options.config,
            options.revision,
            {split: name},
            False,
            folder,
            first_rows,
            "",
            _columns(options),
        )
        rows[name] = _selected((row.content for row in islice(read, _READ_ROWS)), options)
    return rows


def _selected(rows: Iterator[Any], options: FileConfig | HubConfig) -> list[dict[str, Any]]:
    """A few rows of each level, in order, and a few of those that give no problem."""
    mapping = options.rows
    by_level: dict[int | None, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            continue
        try:
            problem = mapping.problem(row, "row") if mapping.selects(row) else None
        except RowError:
            problem = None
        level = None if problem is None else problem.level
        by_level.setdefault(level, []).append((number, row))
    share = max(_LEVEL_ROWS, _SPLIT_ROWS // max(1, len(by_level)))
    numbered = [
        pair
        for level, pairs in by_level.items()
        for pair in pairs[: _UNUSED_ROWS if level is None and len(by_level) > 1 else share]
    ]
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]


def _with_fractions(options: Any) -> Any:
    """Few prompts need larger fractions; none stays none."""
    fractions = {
        name: max(value, _LEAST_FRAC)
        for name in ("test_frac", "validation_frac")
        if (value := getattr(options, name)) and value < 1.0
    }
    return replace(options, **fractions)


def _cut(value: Any, factor: float) -> Any:
    """A row with its long texts cut: their beginnings and ends, and lines with marks, stay."""
    if isinstance(value, Mapping):
        return {key: _cut(item, factor) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, factor) for item in value]
    if not isinstance(value, str):
        return value
    most = max(_LEAST_CHARACTERS, int(factor * len(value)))
    if len(value) <= most:
        return value
    lines = re.split(r"(?<=\n)|(?<=[.!?] )", value)
    head, tail = most // 2, len(value) - most // 2
    kept, place = [], 0
    for line in lines:
        end = place + len(line)
        if end <= head or place >= tail or (_KEPT_LINE.search(line) and len(line) < most):
            kept.append(line)
        place = end
    return "".join(kept)


def _written(
    options: FileConfig | HubConfig,
    place: Path,
    rows: Mapping[str | None, Sequence[Mapping[str, Any]]],
) -> FileConfig | HubConfig:
    """The source of these rows: a file where it read a file, else a dataset."""
    # `datasets` caches a folder by its name and its card, whatever its files hold.
    place = place.with_name(
        f"{place.name}-{digest(json.dumps(list(rows.items()), default=str))[:8]}"
    )
    place.mkdir(parents=True, exist_ok=True)
    if None in rows:
        place = place / f"{Path(str(options.path)).stem}.jsonl"
        _write(place, rows[None])
    else:
        _write_dataset(place, getattr(options, "config", None), rows)
    return replace(options, path=str(place))


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, default=str) + "\n" for row in rows)


def _write_dataset(
    folder: Path, config: str | None, rows: Mapping[str | None, Sequence[Mapping[str, Any]]]
) -> None:
    """A dataset as the hub has it: a file a split, and a card that names them."""
    files = []
    for split, of_split in rows.items():
        _write(folder / f"{split}.jsonl", of_split)
        files.append({"split": split, "path": f"{split}.jsonl"})
    card = {"configs": [{"config_name": config or "default", "data_files": files}]}
    text = f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
