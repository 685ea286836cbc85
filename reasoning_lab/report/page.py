"""The report as one HTML file that opens anywhere, without a network.

Tables are plain HTML. The file's own script draws the figures and the browser of rollouts from
compressed data in the file. A model's output is only inserted as text, and the content security
policy forbids other scripts and all requests. Temml (MIT), which is included, typesets mathematics.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from reasoning_lab.evaluate.statistics import across_seeds
from reasoning_lab.graph.recipe import variant_label
from reasoning_lab.report.comparisons import Claims, Comparison
from reasoning_lab.report.evidence import LEDGER_COLUMNS, Evidence, GraphNode
from reasoning_lab.report.head import head_facts
from reasoning_lab.report.rows import Row
from reasoning_lab.report.table import (
    TEXT_COLUMNS,
    comparison_cells,
    filled,
    heading,
    interval,
    mean_cells,
    p_value,
    percent,
    row_cells,
    sentences,
)
from reasoning_lab.report.template import asset, content_security_policy, fill

# The paper's stage ladder (arXiv 2504.21233), pass@1 in percent at temperature 0.6 and top-p 0.95,
# by the names of our benchmarks: for orientation, as most runs have another model and problems.
_PAPER: Mapping[str, Mapping[str, float]] = {
    "Phi-4-Mini": {"aime24": 10.0, "math500": 71.8, "gpqa_diamond": 36.9},
    "+ mid-training": {"aime24": 30.0, "math500": 82.9, "gpqa_diamond": 42.6},
    "+ SFT": {"aime24": 43.3, "math500": 89.3, "gpqa_diamond": 48.3},
    "+ Rollout DPO": {"aime24": 50.0, "math500": 93.6, "gpqa_diamond": 49.0},
    "+ RL": {"aime24": 57.5, "math500": 94.6, "gpqa_diamond": 52.0},
}


def html_page(rows: Sequence[Row], claims: Claims, evidence: Evidence, method: str) -> str:
    """The complete HTML file; `method` says how intervals and p-values are computed."""
    scripts = {name: asset(f"{name}.js") for name in ("temml.min", "components", "page")}
    data = {
        "ladder": _ladder(rows),
        "variants": [_variant_point(comparison) for comparison in claims.variants],
        "curves": evidence.curves(),
        "nodes": [
            _node(evidence.nodes[fingerprint], name)
            for fingerprint, name in evidence.node_names().items()
        ],
        **evidence.rollouts(),
    }
    compressed = gzip.compress(json.dumps(data, allow_nan=False).encode(), mtime=0)
    parts = {
        "title": escape(heading(rows)),
        "head": _head(evidence),
        "about": escape(method),
        "policy": content_security_policy(list(scripts.values())),
        "style": asset("page.css"),
        "ablation": _ablation(claims.variants),
        "results": _results(rows, claims),
        "paper": _paper_style(rows),
        "claims": _claims(claims.stages),
        "seen": "".join(f"<p>{escape(one)}</p>" for one in evidence.overlap_sentences()),
        "dropped": _table(LEDGER_COLUMNS, evidence.ledger_cells()),
        "provenance": _provenance(evidence),
        "data": base64.b64encode(compressed).decode(),
        "temml": scripts["temml.min"],
        "components": scripts["components"],
        "script": scripts["page"],
    }
    return fill("page.html", parts)


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    columns, cells = filled(columns, cells)
    names = [' class="name"' if name in TEXT_COLUMNS else "" for name in columns]

    def line(tag: str, values: Sequence[str]) -> str:
        cells = zip(names, values, strict=True)
        return "<tr>" + "".join(f"<{tag}{name}>{escape(v)}</{tag}>" for name, v in cells) + "</tr>"

    return "<table>" + line("th", columns) + "".join(line("td", row) for row in cells) + "</table>"


def _results(rows: Sequence[Row], claims: Claims) -> str:
    means = _table(*mean_cells(claims.means)) if claims.means else ""
    all_seeds = _table(*row_cells(rows))
    return (
        f"{means}<details><summary>each seed</summary>{all_seeds}</details>" if means else all_seeds
    )


def _paper_style(rows: Sequence[Row]) -> str:
    """A table in the form of the paper's, one row for each policy, with the paper's rows below."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row.variant, row.stage), {}).setdefault(row.benchmark, []).append(row)
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    is_shared = any(name in benchmarks for name in next(iter(_PAPER.values())))
    paper_benchmarks = [name for name in next(iter(_PAPER.values())) if name not in benchmarks]
    several = len({row.variant for row in rows}) > 1
    cells = [
        [
            f"{stage} ({variant_label(variant)})" if several else stage,
            *(
                _mean_cell(by_benchmark[name]) if name in by_benchmark else ""
                for name in benchmarks
            ),
            *[""] * len(paper_benchmarks),
        ]
        for (variant, stage), by_benchmark in groups.items()
    ]
    cells += [
        [
            f"paper: {name}",
            *(f"{row[b]:.1f}%" if b in row else "" for b in [*benchmarks, *paper_benchmarks]),
        ]
        for name, row in _PAPER.items()
    ]
    table = _table(["policy", *benchmarks, *paper_benchmarks], cells)
    note = "The paper's rows are of Phi-4-Mini, as reported; nothing here is paired with them."
    return (
        f"<details{' open' if is_shared else ''}><summary>beside the paper</summary>"
        f'<div class="scroll">{table}</div><p class="dim">{note}</p></details>'
    )


def _mean_cell(rows: Sequence[Row]) -> str:
    means = [row.pass_at_1 for row in rows]
    if len(means) == 1:
        return f"{percent(means[0])} ({interval(*rows[0].ci95)})"
    return f"{percent(sum(means) / len(means))} ({interval(*across_seeds(means))} over seeds)"


def _head(evidence: Evidence) -> str:
    lines = [
        f"<dt>{escape(name)}</dt><dd>{'<br>'.join(map(escape, values))}</dd>"
        for name, values in head_facts(evidence).items()
    ]
    return f"<dl>{''.join(lines)}</dl>" if lines else ""


def _ablation(comparisons: Sequence[Comparison]) -> str:
    """The verdict on the variants, which is why several were run; empty without variants."""
    if not comparisons:
        return ""
    return (
        '<section id="ablation"><h2>What each variant changed</h2>'
        f'<figure id="variants"></figure>{_claims(comparisons)}</section>'
    )


def _claims(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "<p>There is one policy, so nothing to compare.</p>"
    table = _table(*comparison_cells(comparisons))
    return f'{_sentences(comparisons)}<div class="scroll">{table}</div>'


def _sentences(comparisons: Sequence[Comparison]) -> str:
    bold = re.compile(r"[*]{2}(.+?)[*]{2}")
    lines = [bold.sub(r"<b>\1</b>", escape(sentence)) for sentence in sentences(comparisons)]
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _node(node: GraphNode, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "fingerprint": node.fingerprint,
        "inputs": list(node.inputs),
        "wall_s": node.wall_s,
    }


def _ladder(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Points of the ladder figure; each combination of variant, benchmark and seed is a line."""
    differing = [
        name
        for name in ("variant", "benchmark", "seed")
        if len({getattr(row, name) for row in rows}) > 1
    ]
    return [
        {
            "line": ", ".join(_line_label(name, row) for name in differing) or row.benchmark,
            "stage": row.stage,
            "mean": row.pass_at_1,
            "low": row.ci95[0],
            "high": row.ci95[1],
        }
        for row in rows
    ]


def _line_label(name: str, row: Row) -> str:
    value = getattr(row, name)
    return variant_label(value) if name == "variant" else f"{name} {value}"


def _variant_point(comparison: Comparison) -> dict[str, Any]:
    """A line of the ablation figure: a variant's difference with its interval."""
    difference, p = comparison.decisive
    return {
        "variant": variant_label(comparison.variant),
        "baseline": variant_label(comparison.baseline_variant),
        "benchmark": comparison.benchmark,
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p": p_value(p),
    }


def _provenance(evidence: Evidence) -> str:
    configs = "".join(
        f"<details><summary>config: {escape(title)}</summary><pre>{escape(text)}</pre></details>"
        for title, text in evidence.configs.items()
    )
    return f'<div class="scroll" id="graph"></div>{configs}'
