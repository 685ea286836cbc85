"""The benchmarks' pairs: equal work is held, at a size of seconds; figures are not looked at."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_lab.data.corpus import read_rollouts
from reasoning_lab.models.policy import load_policy, load_tokenizer
from reasoning_lab.models.tokenizer import tokenize_rollouts

from .pairs import colocated, distillation
from .pairs.__main__ import (
    DRAWING,
    UnequalWorkError,
    assert_equal_losses,
    assert_equal_work,
    table,
)
from .pairs.limits import decoding_bytes, decoding_products, training_products
from .pairs.work import PAIRS, Pair, side_of
from .pairs.workload import (
    ENDING_POLICY,
    RL_ENDS_ONE_IN,
    SIZES,
    Size,
    write_workload,
)

NARROW = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workload")
    write_workload(SIZES["smoke"], folder)
    return folder


def test_a_packed_round_is_exactly_its_rows(workload: Path) -> None:
    size = SIZES["smoke"]
    tokenizer = load_tokenizer(workload / "policy", None, "policy")
    rollouts = read_rollouts(workload / "midtrain" / "accepted.parquet")
    lengths = [example.length for example in tokenize_rollouts(tokenizer, rollouts)]
    assert sum(lengths) == size.steps["midtrain"] * size.batch_rows * size.row_tokens
    assert set(lengths) == {size.row_tokens // 2, size.row_tokens // 4, size.row_tokens // 8}


def test_every_word_is_a_token(workload: Path) -> None:
    tokenizer = load_tokenizer(workload / "policy", None, "policy")
    assert len(tokenizer) == SIZES["smoke"].vocab_size
    (rollout, *_) = read_rollouts(workload / "sft" / "accepted.parquet")
    (example,) = tokenize_rollouts(tokenizer, [rollout])
    assert len(example.prompt_ids) == 3 + len(rollout.problem.prompt.split())
    assert len(example.completion_ids) == 1 + len(rollout.completion.text.split())
    assert tokenizer.pad_token_id not in [*example.prompt_ids, *example.completion_ids]


@torch.no_grad()
def test_a_policy_ends_one_token_in_so_many(workload: Path) -> None:
    model, tokenizer = load_policy(workload / ENDING_POLICY, "float32")
    tokens = torch.randint(len(tokenizer), (16, 32), generator=torch.Generator().manual_seed(1))
    share = model(input_ids=tokens).logits.softmax(-1)[..., tokenizer.eos_token_id]
    assert float(share.mean()) == pytest.approx(1 / RL_ENDS_ONE_IN, rel=0.05)
    assert float(share.std() / share.mean()) < 0.1
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_products_by_hand() -> None:
    """A layer of 4 x 8 x 8 + 3 x 8 x 10 weights, twice; 8 x 20 for the vocabulary."""
    products = training_products(Size(20, NARROW, 1), tokens=7, trained=3, passes=3)
    assert products == 3 * 2 * (7 * 2 * (256 + 240) + 3 * 160)


def test_decoding_by_hand() -> None:
    """The same model with one head of its two for keys; rows of 5 and 2 tokens draw 3 and 1."""
    size = Size(20, {**NARROW, "num_key_value_heads": 1}, 1)
    weights = 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 10)
    products = 2 * (9 * weights + 4 * 8 * 20)  # Tokens read: 5 + 2 and 2 + 0; drawn: 4.
    assert decoding_products(size, [5, 2], [3, 1]) == products
    # Three positions read the weights; the second and third of the first row 6 and 7 pairs.
    read_bytes = decoding_bytes(size, [5, 2], [3, 1])
    assert read_bytes == 4 * (3 * (weights + 8 * 20) + (6 + 7) * 2 * (2 * 4))


def answer(**changes: Any) -> dict[str, Any]:
    return {"units": 10.0, "tokens": 100, "losses": [3.0, 2.0], **changes}


def test_unequal_work_is_refused() -> None:
    assert_equal_work("sft", answer(), answer(losses=[]))
    assert_equal_losses("sft", answer(), answer(losses=[3.00009, 2.0]))
    with pytest.raises(UnequalWorkError, match="tokens"):
        assert_equal_work("sft", answer(), answer(tokens=101))
    with pytest.raises(UnequalWorkError, match="units"):
        assert_equal_work("sft", answer(), answer(units=11.0))
    with pytest.raises(UnequalWorkError, match="losses"):
        assert_equal_losses("sft", answer(), answer(losses=[3.0, 2.0002]))
    assert_equal_work("generation", answer(), answer(tokens=120))
    with pytest.raises(UnequalWorkError, match="tokens"):
        assert_equal_work("generation", answer(), answer(tokens=140))


def test_work_that_lifted_no_peak_has_no_share_of_it() -> None:
    numbers = dict.fromkeys(("ours", "peer", "ratio", "ratio_min", "ratio_max", "load"), 1.0)
    row = {
        **numbers,
        **dict.fromkeys(("cpu_ratio", "limit", "bandwidth", "target")),
        **{"name": "sft/smoke", "against": "TRL", "unit": "tokens/s", "n": 1},
        **{"ours_work_mb": 3.0, "peer_work_mb": 0.0, "ours_peak_mb": 8.0, "peer_peak_mb": 16.0},
    }
    assert table([row], 1).splitlines()[-1].split("|")[11].strip() == "(50%)"


def marks_of(name: str, pair: Pair) -> list[pytest.MarkDecorator]:
    """`grpo_vllm` compiles a vLLM, for a minute."""
    if pair.package != "vllm":
        return [pytest.mark.long]
    return [pytest.mark.vllm, *([pytest.mark.soak] if name == "grpo_vllm" else [])]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=marks_of(name, pair))
        for name, pair in PAIRS.items()
        if pair.is_possible
    ],
)
def test_both_sides_do_equal_work(
    name: str, workload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONING_LAB_TRUSTED", "tests")
    for module in (colocated, distillation):  # Else their engines would stay open.
        monkeypatch.setattr(module, "OPEN_ENGINES", type(module.OPEN_ENGINES)())
    sides = [side_of(path, workload) for path in (PAIRS[name].ours, PAIRS[name].peer)]
    checks = [asdict(side.check()) for side in sides]
    rounds = [asdict(side.round()) for side in sides]
    if name not in DRAWING:
        assert_equal_work(name, *checks)
        assert_equal_losses(name, *checks)
        assert all(check["losses"] for check in checks) == (name != "verification")
    assert_equal_work(name, *rounds)
    assert all(work["units"] > 0 and work["seconds"] > 0 for work in rounds)
    assert (rounds[0]["flops"] > 0) == (name in ("midtrain", "sft", "dpo", "generation"))


@pytest.mark.soak
def test_command_measures_a_pair_and_leaves_out_another(tmp_path: Path) -> None:
    names = "sft,generation,distillation"
    arguments = [names, "--size", "smoke", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.pairs", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "bench.json").read_text())["results"]
    if not PAIRS["distillation"].is_possible:
        assert "distillation: left out, as the package" in done.stdout
        assert len(results) == 2
    for row, name in zip(results[:2], ("sft", "generation"), strict=True):
        assert row["name"] == f"{name}/smoke"
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row.keys() >= {"unit", "target", "n"}
        assert row["limit"] > 0
        assert (row["bandwidth"] is not None) == (name == "generation")
    assert (tmp_path / "bench.md").read_text() == table(results, 1)
