"""What is written down of an artifact, and the fingerprint that names it.

A record says what went in, what came out and which files there are. It is sealed with a checksum of
its own content, so that a file that was altered is told from one that was written.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from reasoning_lab.system.files import sha256

RECORD_FILE = "artifact.json"
# Raised when records change in a way that earlier versions cannot be read by.
LAYOUT = 2
_FIRST_LAYOUT = 1


def fingerprint(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the sha256 of `identity` as canonical JSON.

    Keys are sorted, floats are written by `repr`, tuples equal lists; 1 and 1.0 differ.

    Raises:
        ValueError: A number is NaN or infinite, so it equals nothing that can be looked up.
        TypeError: A key is not a string, or a value has no JSON form.
    """
    return digest(identity)[:16]


def digest(value: Any) -> str:
    """The sha256 of `value` as canonical JSON, in hex."""
    text = json.dumps(_canonical(value), sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """`value` in plain dicts and lists; refuses keys that JSON would silently turn to text."""
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"an identity's keys are strings, but {wrong[0]!r} is one of them")
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


def _finite(value: Any) -> Any:
    """Metrics as strict JSON: numpy scalars as numbers, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a stage says of the files that it wrote.

    Attributes:
        kind: What the artifact is called; see `Artifact.kind`.
        identity: All that decides the result, as it went into the fingerprint.
        inputs: Name of each input artifact -> its fingerprint.
        seed: The stage's random seed.
        metrics: Results worth reading without opening the files; NaN is stored as null.
        ledger: What came in, went out and was dropped, by unit; see `Ledger.as_json`.
        versions: Package -> version that ran.
    """

    kind: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


class FileRecord(NamedTuple):
    """Size in bytes and sha256 (hex) of one file of an artifact."""

    bytes: int
    sha256: str


class CorruptArtifactError(Exception):
    """An artifact's files are not those that its record describes."""


class OlderLayoutError(CorruptArtifactError):
    """An artifact was written by a version of the lab whose records have another layout."""


@dataclass(frozen=True, kw_only=True)
class Record(Metadata):
    """A committed stage.

    Attributes:
        path: The folder with the files.
        stage: The stage's name in the recipe.
        fingerprint: 16 hex digits, the folder's name.
        files: Path inside the folder -> size and checksum; `artifact.json` is not among them.
    """

    path: Path
    stage: str
    fingerprint: str
    files: Mapping[str, FileRecord]

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Load `path/artifact.json` without looking at the other files.

        Raises:
            CorruptArtifactError: The record is missing, unreadable, altered or of another folder;
                `OlderLayoutError` where another version of the lab wrote it.
        """
        try:
            content = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
            if content.get("layout", _FIRST_LAYOUT) != LAYOUT:
                raise OlderLayoutError(f"{RECORD_FILE} is of another version of the lab")
            intact = content.pop("record_sha256") == digest(content)
            del content["layout"]
            files = {name: FileRecord(*entry) for name, entry in content.pop("files").items()}
            record = cls(path=path, files=files, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptArtifactError(f"{RECORD_FILE} cannot be read") from error
        place = (path.parent.name, path.name)
        if not intact or (record.stage, record.fingerprint) != place:
            raise CorruptArtifactError(f"{RECORD_FILE} was altered or belongs to another folder")
        return record

    def write(self, folder: Path) -> None:
        """Write `folder/artifact.json`, sealed with a checksum of its own content."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"}
        content["layout"] = LAYOUT
        content["metrics"] = _finite(self.metrics)
        content["record_sha256"] = digest(content)
        text = json.dumps(_canonical(content), indent=2, allow_nan=False) + "\n"
        (folder / RECORD_FILE).write_text(text, encoding="utf-8")

    def verify(self, hash_of: Callable[[Path, str], str] | None = None) -> None:
        """Compare every file with its recorded size and checksum.

        Args:
            hash_of: Gives the SHA-256 of a file, from its path and its name in `files`; None = it
                is computed.

        Raises:
            CorruptArtifactError: A file is missing or differs; the message names it.
        """
        for damage in self.damages(hash_of or (lambda file, name: sha256(file))):
            raise CorruptArtifactError(damage)

    def damages(self, hash_of: Callable[[Path, str], str]) -> Iterator[str]:
        """What is wrong with each file that is not as recorded; `hash_of` as for `verify`."""
        for name, record in self.files.items():
            file = self.path / name
            if not file.is_file():
                yield f"{name} is missing"
            elif file.stat().st_size != record.bytes or hash_of(file, name) != record.sha256:
                yield f"{name} differs from its checksum"
