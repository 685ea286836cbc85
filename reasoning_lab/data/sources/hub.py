"""Problems from a dataset of the Hugging Face hub, or from a local copy of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reasoning_lab.data.sources.problem_table import SPLITS
from reasoning_lab.data.sources.readers import Read, file_rows, hub_rows
from reasoning_lab.data.sources.row_mapping import parse_row_mapping
from reasoning_lab.data.sources.table_source import TableSource, local_content_hash
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.types import UserError


class HubSource(TableSource):
    """Problems from a dataset of the hub, or from a local copy of it.

    The first request for problems starts the download.

    Its arguments are the fields of `HubConfig`, which describes them; `rows` is a plain mapping.

    Raises:
        UserError: `splits` names no split of ours. Drawing problems raises it where there is
            neither network nor copy.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None,
        revision: str,
        licence: str,
        splits: Mapping[str, str],
        rows: Mapping[str, Any],
        test_frac: float,
        validation_frac: float,
        streaming: bool = False,
        path: str | None = None,
        unreadable: str = "drop",
        max_unreadable_frac: float = 0.5,
        corrections: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        unknown = [name for name in splits if name not in SPLITS]
        if unknown or not splits:
            raise UserError(
                f"data.splits: {dict(splits)} must name the dataset's own split for any of train, "
                "validation and test; correct its keys"
            )
        self._dataset, self._revision, self._licence = dataset, revision, licence
        self._copy = None if path is None else Path(path)
        # The held-out splits come first: of equal prompts the first row decides the split.
        ordered = {split.value: splits[split] for split in reversed(SPLITS) if split in splits}
        arguments: dict[str, Any] = {"content": self.content()}
        read: Callable[..., Read] = hub_rows
        if self._copy is not None and self._copy.is_file():
            read, arguments["path"] = file_rows, path
        else:
            arguments |= {"dataset": dataset, "config": config, "revision": revision}
            arguments |= {"splits": ordered, "streaming": streaming, "folder": path}
        super().__init__(
            f"data: '{dataset if path is None else path}'",
            read,
            arguments,
            parse_row_mapping(rows, "data.rows"),
            test_frac,
            validation_frac,
            UnreadablePolicy(unreadable, max_unreadable_frac, "data"),
            corrections or {},
        )
        if self._copy is not None:
            _ = self._rows

    def content(self) -> str:
        return (
            f"{self._dataset}@{self._revision}"
            if self._copy is None
            else local_content_hash(self._copy)
        )

    def is_local(self) -> bool:
        return self._copy is not None

    def provenance(self) -> Mapping[str, str]:
        revision = self._revision if self._copy is None else f"local copy {self.content()}"
        return {"name": self._dataset, "revision": revision, "licence": self._licence}
