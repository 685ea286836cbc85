"""The subcommand `store`: lists what artifacts take on the disk, prunes and verifies them."""

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from reasoning_lab.commands.arguments import take_values, to_overrides
from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.root_config import PathsConfig
from reasoning_lab.commands.sweep import by_experiment, recipes, with_sweep
from reasoning_lab.graph.housekeeping import (
    Entry,
    damages,
    entries,
    made_from,
    remove,
    unneeded,
)
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.running import needed_by_runs
from reasoning_lab.graph.store import Store
from reasoning_lab.types import UserError

# Where the reports of runs, sweeps and `report` are, below `paths.runs`.
_REPORTS = ("recipes/*/report.json", "sweeps/*/*/report.json", "reports/*/report.json")
_YES = "--yes"
_BLOCK_BYTES = 1 << 22


def main(arguments: Sequence[str]) -> None:
    """`list`, `prune` or `verify`, and what each takes."""
    action, words = "list", list(arguments)
    if words and "=" not in words[0] and not words[0].startswith("-"):
        action = words.pop(0)
    if action == "prune":
        _prune(words)
        return
    (runs,), unknown = take_values(words, "paths.runs")
    if action not in ("list", "verify") or unknown:
        raise UserError(
            f"store {' '.join(arguments)}: write store list, store prune experiment=NAME or store "
            "verify, maybe with paths.runs=FOLDER"
        )
    store = _store(Path(runs or PathsConfig().runs))
    if action == "list":
        _list(store)
    elif _damaged(store):
        sys.exit(1)


def _store(runs: Path) -> Store:
    store = Store(runs / "store")
    if not store.root.is_dir():
        raise UserError(
            f"paths.runs={runs}: there is no store in it; name the folder in which recipes ran"
        )
    return store


def _list(store: Store) -> None:
    everything, console = entries(store), _console()
    console.print(_table(everything, _users(everything, store.root.parent)))
    free = shutil.disk_usage(store.root).free
    console.print(f"{_counted(everything)}; {decimal(free)} are free on this disk.")


def _prune(words: Sequence[str]) -> None:
    overrides = to_overrides([word for word in words if word != _YES])
    if not any(word.startswith(("experiment=", "recipe=")) for word in overrides):
        raise UserError(
            "store prune: name what to keep, as in store prune experiment=smoke,gsm8k, or "
            "recipe=tiny; all else would be removed"
        )
    needs: set[str] = set()
    runs: set[str] = set()
    for recipe in _recipes(overrides):
        needs |= recipe.needs
        runs.add(recipe.root.paths.runs)
    if len(runs) > 1:
        raise UserError(
            f"paths.runs: the recipes lie in several folders ({', '.join(sorted(runs))}); choose "
            "one by paths.runs=FOLDER"
        )
    store = _store(Path(*runs))
    running = needed_by_runs(store.root)
    everything = entries(store)
    removable = unneeded(everything, needs, running)
    console = _console()
    if removable:
        console.print(_table(removable))
    stored = {entry.fingerprint for entry in everything if entry.record}
    paths = {entry.path for entry in removable}
    remaining = [entry for entry in everything if entry.path not in paths]
    lines = [
        f"Of the {len(needs)} artifacts that these recipes need, {len(needs & stored)} are stored.",
        f"To keep: {_counted(remaining)}.",
        f"To remove: {_counted(removable)}.",
    ]
    if not needs & stored:
        lines.insert(1, "Check names and overrides: nothing of these recipes would remain.")
    if running:
        lines.insert(1, "What running recipes need is kept, too.")
    for line in lines:
        console.print(line)
    if _YES in words:
        removed = []
        for entry in removable:
            if remove(store, entry, running):
                removed.append(entry)
            else:
                console.print(f"Left {entry.path}: a process makes or needs it.")
        console.print(f"Removed: {_counted(removed)}.")
    elif removable:
        console.print(f"Nothing was removed; add {_YES} to remove it.")


def _recipes(overrides: Sequence[str]) -> Iterator[Recipe]:
    """The recipes of each experiment, as it runs alone and under `-m`."""
    for one in by_experiment(overrides):
        yield from recipes(one)
        if (swept := with_sweep(one)) != one:
            yield from recipes(swept)


def _damaged(store: Store) -> bool:
    """Name each damaged file; whether there is one."""
    # Those that cannot be read are among the damages.
    records = [content for _, content in store.records() if isinstance(content, Record)]
    total = sum(file.bytes for record in records for file in record.files.values())
    console = _console()
    columns = (TextColumn("hashing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    terminal = Console(stderr=True)
    hidden = not terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=total)

        def hashed(file: Path) -> str:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
                    progress.advance(task, len(block))
            return digest.hexdigest()

        faults = list(damages(store, hashed))
    for path, fault in faults:
        console.print(f"{path}: {fault}.")
    if faults:
        console.print("The next run that needs one of these artifacts makes it again.")
    else:
        console.print(f"{len(records)} artifacts, {decimal(total)}: every file is as recorded.")
    return bool(faults)


def _console() -> Console:
    """Prints paths as they are, whatever brackets they have."""
    return Console(markup=False, highlight=False, soft_wrap=True)


def _table(shown: Sequence[Entry], users: Mapping[str, str] | None = None) -> Table:
    """The entries for a terminal; `users` says by fingerprint what uses an artifact."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("stage", overflow="fold")
    table.add_column("fingerprint", no_wrap=True)
    for name in ("size", "made\nago", "used\nago"):
        table.add_column(name, justify="right", no_wrap=True)
    if users is not None:
        table.add_column("used by")
    for entry in shown:
        cells = [entry.kind, entry.stage, entry.fingerprint[:8], decimal(entry.bytes)]
        cells += [_age(entry.changed_s), _age(entry.used_s)]
        table.add_row(*cells, *([] if users is None else [users.get(entry.fingerprint, "")]))
    return table


def _users(everything: Sequence[Entry], runs: Path) -> dict[str, str]:
    """What uses each artifact, by its fingerprint: stages with their number, and reports."""
    products = made_from(everything)
    reports: Counter[str] = Counter()
    for path in (path for pattern in _REPORTS for path in runs.glob(pattern)):
        reports.update(_reported(path))
    return {
        name: _user_cell(products.get(name, ()), reports[name])
        for name in products.keys() | reports.keys()
    }


def _user_cell(products: Sequence[Record], reports: int) -> str:
    stages = Counter(record.stage for record in products)
    cells = [stage if count == 1 else f"{stage} ×{count}" for stage, count in stages.items()]
    cells += [f"{reports} report" + "s" * (reports > 1)] if reports else []
    return ", ".join(cells)


def _reported(report: Path) -> set[str]:
    """Fingerprints that a report names."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        lines = [*content["rows"], *content.get("ledgers", [])]
        return {line["fingerprint"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # Another program's, or one of an earlier version.


def _counted(some: Sequence[Entry]) -> str:
    artifacts = sum(entry.record is not None for entry in some)
    others = len(some) - artifacts
    counted = f"{artifacts} artifact{'' if artifacts == 1 else 's'}"
    if others:
        counted += f" and {others} {'leftover or cache' if others == 1 else 'leftovers or caches'}"
    return f"{counted}, {decimal(sum(entry.bytes for entry in some))}"


def _age(time_s: float | None) -> str:
    """How long ago that was, in the largest unit of which it is at least one."""
    if time_s is None:
        return ""
    age_s = max(0.0, time.time() - time_s)
    for unit, seconds in (("d", 86_400), ("h", 3600)):
        if age_s >= seconds:
            return f"{age_s / seconds:,.0f} {unit}"
    return f"{age_s / 60:.0f} min"
