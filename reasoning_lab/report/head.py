"""The head of a report: what was run, when, for how long, on what and by which code."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from reasoning_lab.report.evidence import Evidence

_MAX_COMMANDS = 4


def head_facts(evidence: Evidence) -> dict[str, list[str]]:
    """Each fact by its name; facts that no artifact recorded are left out.

    Artifacts that several recipes share count once. A value that not all artifacts have says of how
    many it is.
    """
    nodes = list(evidence.nodes.values())
    seconds = [node.wall_s for node in nodes if node.wall_s is not None]
    facts = {
        "command": _few(evidence.commands),
        "finished": _period(node.finished_at for node in nodes if node.finished_at),
        "took": [_duration(seconds)] if seconds else [],
        "hardware": _counted(node.hardware for node in nodes),
        "commit": _counted(node.commit for node in nodes),
        "versions": _counted(
            ", ".join(f"{name} {number}" for name, number in node.versions.items()) or None
            for node in nodes
        ),
    }
    return {name: values for name, values in facts.items() if values}


def head_sentences(evidence: Evidence) -> list[str]:
    """The facts as lines of Markdown."""
    return [
        f"**{name}**: {'; '.join(f'`{v}`' if name == 'command' else v for v in values)}"
        for name, values in head_facts(evidence).items()
    ]


def _few(commands: list[str]) -> list[str]:
    others = len(commands) - _MAX_COMMANDS
    return commands if others <= 0 else [*commands[:_MAX_COMMANDS], f"and {others} more"]


def _period(times: Iterable[str]) -> list[str]:
    """From the first artifact's time to the last one's, in UTC."""
    moments = sorted(map(datetime.fromisoformat, times))
    if not moments:
        return []
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    return [f"{last} UTC" if first == last else f"{first} to {last} UTC"]


def _duration(seconds: list[float]) -> str:
    total = timedelta(seconds=round(sum(seconds)))
    return f"{total} for {_steps(len(seconds))}, one after the other"


def _counted(values: Iterable[str | None]) -> list[str]:
    """Different values, each with the number of artifacts where there are several."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    if len(counts) < 2:
        return list(counts)
    return [f"{value} ({_steps(count)})" for value, count in counts.items()]


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
