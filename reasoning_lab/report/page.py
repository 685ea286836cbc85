"""The report as one HTML file that opens anywhere, without a network.

Place in the flow: beside the Markdown. Tables are plain HTML; figures, and the browser of rollouts,
are drawn by the file's own script from data that it carries compressed. What a model wrote
reaches the page as text alone, and the page's content policy lets no other script run and
nothing be fetched. Mathematics is typeset by Temml (MIT), which is carried along.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from reasoning_lab.evaluate.statistics import across_seeds
from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Claims, Comparison
from reasoning_lab.report.evidence import LEDGER_COLUMNS, Evidence, GraphNode
from reasoning_lab.report.paper import LADDER
from reasoning_lab.report.rows import Row
from reasoning_lab.report.table import (
    TEXT_COLUMNS,
    comparison_cells,
    interval,
    mean_cells,
    p_value,
    percent,
    row_cells,
    row_columns,
    sentences,
)

_ASSETS = files("reasoning_lab.report") / "assets"
_ROW_PX, _ARC_PX = 22, 7


def html_page(rows: Sequence[Row], claims: Claims, evidence: Evidence, method: str) -> str:
    """The whole file.

    Args:
        rows: Every policy on every benchmark.
        claims: What is said of them.
        evidence: What stands behind them.
        method: How intervals and p-values were made, in words.
    """
    scripts = {name: _asset(f"{name}.js") for name in ("temml.min", "page")}
    data = {
        "ladder": _ladder(rows),
        "variants": [_change(comparison) for comparison in claims.variants],
        "curves": evidence.curves(),
        **evidence.rollouts(),
    }
    packed = gzip.compress(json.dumps(data, allow_nan=False).encode(), mtime=0)
    parts = {
        "title": "pass@1 on held-out problems",
        "about": escape(method),
        "policy": _policy(list(scripts.values())),
        "style": _asset("page.css"),
        "results": _results(rows, claims),
        "paper": _paper_style(rows),
        "claims": _told(claims),
        "dropped": _table(LEDGER_COLUMNS, evidence.ledger_cells()),
        "provenance": _provenance(evidence),
        "data": base64.b64encode(packed).decode(),
        "temml": scripts["temml.min"],
        "script": scripts["page"],
    }
    return re.sub(r"\$([a-z]+)", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and nothing is fetched."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {' '.join(hashes)}"


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    names = [' class="name"' if name in TEXT_COLUMNS else "" for name in columns]

    def line(tag: str, values: Sequence[str]) -> str:
        inside = zip(names, values, strict=True)
        return "<tr>" + "".join(f"<{tag}{name}>{escape(v)}</{tag}>" for name, v in inside) + "</tr>"

    return "<table>" + line("th", columns) + "".join(line("td", row) for row in cells) + "</table>"


def _results(rows: Sequence[Row], claims: Claims) -> str:
    columns = row_columns(rows)
    means = _table(*mean_cells(claims.means)) if claims.means else ""
    each = _table(columns, [row_cells(row, columns) for row in rows])
    return f"{means}<details><summary>each seed</summary>{each}</details>" if means else each


def _paper_style(rows: Sequence[Row]) -> str:
    """Policies down, benchmarks across, and the paper's own rows below."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row.variant, row.stage), {}).setdefault(row.benchmark, []).append(row)
    ours = list(dict.fromkeys(row.benchmark for row in rows))
    theirs = [name for name in next(iter(LADDER.values())) if name not in ours]
    several = len({row.variant for row in rows}) > 1
    cells = [
        [
            f"{stage} ({variant_label(variant)})" if several else stage,
            *(_mean_cell(found[name]) if name in found else "" for name in ours),
            *[""] * len(theirs),
        ]
        for (variant, stage), found in groups.items()
    ]
    cells += [
        [f"paper: {name}", *(f"{row[b]:.1f}%" if b in row else "" for b in [*ours, *theirs])]
        for name, row in LADDER.items()
    ]
    note = "The paper's rows are of Phi-4-Mini, as reported; nothing here is paired with them."
    return (
        f'<details open><summary>beside the paper</summary><div class="scroll">'
        f'{_table(["policy", *ours, *theirs], cells)}</div><p class="dim">{note}</p></details>'
    )


def _mean_cell(rows: Sequence[Row]) -> str:
    means = [row.pass_at_1 for row in rows]
    if len(means) == 1:
        return f"{percent(means[0])} ({interval(*rows[0].ci95)})"
    return f"{percent(sum(means) / len(means))} ({interval(*across_seeds(means))} over seeds)"


def _told(claims: Claims) -> str:
    parts = []
    for title, comparisons in (("variants", claims.variants), ("stages", claims.stages)):
        if comparisons:
            parts.append(f"<h3>{title}</h3>{_sentences(comparisons)}")
            parts.append(f'<div class="scroll">{_table(*comparison_cells(comparisons))}</div>')
    return "".join(parts) or "<p>There is one policy, so nothing to compare.</p>"


def _sentences(comparisons: Sequence[Comparison]) -> str:
    bold = re.compile(r"[*]{2}(.+?)[*]{2}")
    lines = [bold.sub(r"<b>\1</b>", escape(told)) for told in sentences(comparisons)]
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _ladder(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Points of the figure; rows that differ in nothing else share a line."""
    told = [
        name
        for name in ("variant", "benchmark", "seed")
        if len({getattr(row, name) for row in rows}) > 1
    ]
    return [
        {
            "line": ", ".join(f"{name} {getattr(row, name)}" for name in told) or row.benchmark,
            "stage": row.stage,
            "mean": row.pass_at_1,
            "low": row.ci95[0],
            "high": row.ci95[1],
        }
        for row in rows
    ]


def _change(comparison: Comparison) -> dict[str, Any]:
    """A line of the ablation's figure: what a variant changed, with its interval."""
    difference = comparison.difference
    return {
        "variant": variant_label(comparison.variant),
        "baseline": variant_label(comparison.baseline_variant),
        "benchmark": comparison.benchmark,
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": p_value(comparison.p_corrected),
    }


def _provenance(evidence: Evidence) -> str:
    configs = "".join(
        f"<details><summary>config: {escape(title)}</summary><pre>{escape(text)}</pre></details>"
        for title, text in evidence.configs.items()
    )
    return f'<div class="scroll">{_graph(evidence.nodes)}</div>{configs}'


def _graph(nodes: Mapping[str, GraphNode]) -> str:
    """A line a node, and at its left an arc from each node that it was made from."""
    places = {fingerprint: place for place, fingerprint in enumerate(nodes)}
    arcs = [
        (places[maker], places[node.fingerprint])
        for node in nodes.values()
        for maker in node.inputs
        if maker in places
    ]
    left = 14 + _ARC_PX * max((end - start for start, end in arcs), default=0) * 3 // 4
    drawn = []
    for start, end in arcs:
        y, to = ((place + 0.7) * _ROW_PX for place in (start, end))
        x = left - 6
        bend = x - _ARC_PX * (end - start)
        drawn.append(
            f'<path d="M{x},{y} C{bend},{y} {bend},{to} {x},{to}" fill="none" stroke="currentColor"'
            ' opacity="0.5"/>'
        )
    for node in nodes.values():
        y = (places[node.fingerprint] + 0.7) * _ROW_PX + 4
        took = "" if node.wall_s is None else f", {node.wall_s:,.0f} s"
        text = escape(f"{node.name}  {node.fingerprint}{took}")
        drawn.append(f'<text x="{left}" y="{y}">{text}</text>')
    height = (len(nodes) + 0.5) * _ROW_PX
    width = left + 420
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width: {width}px" role="img" '
        f'aria-label="the graph of artifacts">{"".join(drawn)}</svg>'
    )
