"""Evaluations by a server, and what is refused before them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.graph.store import Store
from tests.conftest import SMOKE, lab_here
from tests.support.openai_server import Reply, Server, chat_reply, serving

MODELS = ["checkpoint", "tiny"]


def test_a_servers_model_is_asked_as_the_benchmark_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"1 + {n}?", "answer": f"so\n#### {1 + n}"} for n in (1, 2)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lost: list[int] = []

    def reply(body: Mapping[str, Any], number: int) -> Reply:
        """One of the answers to the second problem is empty."""
        if "1 + 2" in body["messages"][0]["content"] and not lost:
            lost.append(number)
            return chat_reply("")
        return chat_reply("It is \\boxed{2}.")

    with serving(Server(reply)) as server:
        code = lab_here(
            *("evaluate", "model=some-model", "engine=openai", "tracker.mode=disabled"),
            f"hardware.sampling.url={server.url}",
            *("benchmark=[gsm8k]", f"benchmarks.gsm8k.data.path={problems}"),
            *("benchmarks.gsm8k.count=2", "benchmarks.gsm8k.samples=3"),
            cwd=tmp_path,
        )
    assert code == 0
    assert len(server.bodies) == 6
    prompts = {body["messages"][0]["content"] for body in server.bodies}
    instruction = "Please reason step by step, and put your final answer within \\boxed{}."
    assert prompts == {f"1 + {n}?\n{instruction}" for n in (1, 2)}
    assert {(b["model"], b["temperature"], b["top_p"], b["max_tokens"]) for b in server.bodies} == {
        ("some-model", 0.6, 0.95, 32768)
    }
    (artifact,) = Store(tmp_path / "runs" / "store").artifacts()
    assert (artifact.metrics["pass@1"], artifact.metrics["maj@3"][0]) == (0.5, 0.5)
    assert artifact.metrics["completion_tokens"] is None
    assert artifact.ledger["problems"] == {"in": 2, "out": 2, "dropped": {}}
    assert artifact.ledger["completions"] == {
        "in": 6,
        "out": 5,
        "dropped": {"not_answered": 1},
        "examples": {"not_answered": ["problems.jsonl, line 2"]},
    }
    (row,) = (artifact.path / "dropped.jsonl").read_text().splitlines()
    assert json.loads(row)["origin"] == "problems.jsonl, line 2"
    output = capsys.readouterr().out
    assert "50.0%" in output
    line = "5 of 6 completions go on; dropped: 1 not answered [problems.jsonl, line 2]"
    assert f"  {line}\n" in output
    (report,) = tmp_path.glob("runs/recipes/*/report.md")
    assert (
        "| some-model/gsm8k (seed 0) | completions | 6 | 5 | 1 not answered |" in report.read_text()
    )


def test_a_servers_model_has_the_system_prompt(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "1 + 1?", "answer": "so\n#### 2"}) + "\n")
    with serving(Server(lambda body, number: chat_reply("It is \\boxed{2}."))) as server:
        code = lab_here(
            *("evaluate", "model=some-model", "engine=openai", "tracker.mode=disabled"),
            *("model.system_prompt=Be brief.", f"hardware.sampling.url={server.url}"),
            *("benchmark=[gsm8k]", f"benchmarks.gsm8k.data.path={problems}"),
            *("benchmarks.gsm8k.count=1", "benchmarks.gsm8k.samples=1"),
            cwd=tmp_path,
        )
    assert code == 0
    (body,) = server.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["messages"][1]["content"].startswith("1 + 1?\n")
    (artifact,) = Store(tmp_path / "runs" / "store").artifacts()
    assert artifact.identity["groups"]["model"]["system_prompt"] == "Be brief."


def test_a_dataset_out_of_reach_ends_a_run_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_here(*SMOKE, "benchmark=[heldout,amc23]", cwd=tmp_path) == 2
    assert "benchmarks.amc23.data.dataset: cannot load 'math-ai/amc23'" in capsys.readouterr().err
    assert not list((tmp_path / "runs" / "store").glob("*/*"))
