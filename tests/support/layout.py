r"""Published datasets and benchmarks as their cards describe them, with invented rows.

Columns, nested types, file names and conventions of answers are the real ones. Every dataset has
rows that are right, rows whose recorded solution is not, and rows that cannot be used. A row says
by itself what must become of it. `write_dataset` writes the files that the hub would serve.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# What becomes of a recorded solution: the ledger's word for a rejected one, or this.
ACCEPTED = "accepted"
WRONG, UNPARSEABLE, CUT_OFF = "wrong", "unparseable", "cut_off"


@dataclass(frozen=True)
class Row:
    r"""A row and what must become of it.

    Attributes:
        columns: Its values.
        gold: The known answer as it is read.
        right: The same answer in other words, as a model may box it.
        wrong: Another answer.
        solutions: What becomes of each recorded solution.
        level: Its difficulty.
        checker: The rule that compares its answers; empty = that of all rows.
        dropped: Why the table leaves it out; empty = it is a problem.
        unreadable: Whether its checker cannot read the gold.
    """

    columns: Mapping[str, Any]
    gold: str = ""
    right: str = ""
    wrong: str = ""
    solutions: tuple[str, ...] = ()
    level: int = 1
    checker: str = ""
    dropped: str = ""
    unreadable: bool = False


@dataclass(frozen=True)
class Layout:
    """A dataset of the hub.

    Attributes:
        files: Path in the repository to the rows of the file.
        splits: The dataset's split to its file.
        config: The name of its configuration; empty = the card names none.
        schema: Types of the columns; None = the file format has none.
    """

    files: Mapping[str, Sequence[Row]]
    splits: Mapping[str, str]
    config: str = ""
    schema: pa.Schema | None = None


def write_dataset(layout: Layout, folder: Path) -> None:
    """Write the files of the repository, with a card that names them where the real one does."""
    for name, rows in layout.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        contents = [dict(row.columns) for row in rows]
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(contents, layout.schema), file)
        elif file.suffix == ".csv":
            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(contents[0]))
                writer.writeheader()
                writer.writerows(contents)
        elif file.suffix == ".json":
            file.write_text(json.dumps(contents), encoding="utf-8")
        else:
            file.write_text("".join(f"{json.dumps(c)}\n" for c in contents), encoding="utf-8")
    if layout.config:
        data_files = "".join(
            f"  - split: {split}\n    path: {path}\n" for split, path in layout.splits.items()
        )
        card = f"configs:\n- config_name: {layout.config}\n  data_files:\n{data_files}"
        (folder / "README.md").write_text(f"---\n{card}---\n# A dataset\n", encoding="utf-8")


def text_columns(*names: str) -> list[tuple[str, pa.DataType]]:
    """Columns of texts, for a schema."""
    return [(name, pa.string()) for name in names]


MESSAGES = pa.list_(pa.struct(text_columns("role", "content")))
