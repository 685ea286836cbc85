"""Problems from a local file: JSON lines, a JSON array, or parquet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasoning_lab.data.sources.readers import file_rows
from reasoning_lab.data.sources.row_mapping import parse_row_mapping
from reasoning_lab.data.sources.table_source import TableSource, local_content_hash
from reasoning_lab.data.sources.unreadable import UnreadablePolicy
from reasoning_lab.types import UserError


class FileSource(TableSource):
    """Problems from a local file: JSON lines, a JSON array, or parquet.

    Its arguments are the fields of `FileConfig`, which describes them; `rows` is a plain mapping.

    Attributes:
        path: The file.

    Raises:
        UserError: The file is missing, or a row is malformed; the row's line is named.
    """

    def __init__(
        self,
        path: str,
        test_frac: float,
        validation_frac: float,
        rows: Mapping[str, Any],
        licence: str = "not stated",
        unreadable: str = "refuse",
        max_unreadable_frac: float = 0.5,
    ) -> None:
        self.path, self._licence = Path(path), licence
        if self.path.is_dir():
            raise UserError(f"data.path: '{path}' is a folder; give a file")
        super().__init__(
            f"data.path: '{path}'",
            file_rows,
            {"path": path, "content": self.content()},
            parse_row_mapping(rows, "data.rows"),
            test_frac,
            validation_frac,
            UnreadablePolicy(unreadable, max_unreadable_frac, "data"),
            {},
        )
        _ = self._rows  # Reports a malformed row before anything expensive begins.

    def content(self) -> str:
        return local_content_hash(self.path)

    def is_local(self) -> bool:
        return True

    def provenance(self) -> Mapping[str, str]:
        return {"name": self.path.name, "revision": self.content(), "licence": self._licence}
