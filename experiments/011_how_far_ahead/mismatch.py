"""How far the engine of each arm was from its trainer: a table of means over steps and seeds.

    python experiments/011_how_far_ahead/mismatch.py [FOLDER OF ANOTHER PAGE]

in the folder whose `runs/` holds the page's sweep. This page's last row is of no arm: a bfloat16
copy of each seed's SFT policy samples, and the policy in float32 would train.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from reasoning_lab.commands.schemas import register_schemas
from reasoning_lab.commands.sweep import recipes
from reasoning_lab.data.sources.problem_source import draw_benchmark
from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.graph.record import Record
from reasoning_lab.graph.store import Store
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.losses.importance import Band, mismatch_metrics, mismatch_sums
from reasoning_lab.models.policy import load_policy
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.report.expected import checked_expected
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.hf import HFEngine
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.types import Example

BASELINE = "002_stage_ablation/no_dpo"
MEASURES = ("mismatch/kl", "mismatch/effective_sample_frac")
CLIPPED = ("train/clip_low_frac", "train/clip_high_frac", "train/outside_band_frac")


def main() -> None:
    """Print the table."""
    register_schemas()
    store = Store(Path("runs/store"))
    page = Path(__file__).parent
    expected, _ = checked_expected(Path(sys.argv[1]) if sys.argv[1:] else page)
    (arms,) = (swept.removeprefix("experiment=") for swept in expected.overrides)
    print("| arm | nats a token | effective samples | tokens that are clipped or left out |")
    print("| :-- | --: | --: | --: |")
    for arm in arms.split(","):
        histories = [read_history(_record(store, arm, seed, "rl").path) for seed in expected.seeds]
        steps = [
            {name: np.array(list(curve.values())) for name, curve in history.items()}
            for history in histories
        ]
        kl, effective = (np.mean([one[name].mean() for one in steps]) for name in MEASURES)
        left_out = np.mean(
            [sum(one[name].mean() for name in CLIPPED if name in one) for one in steps]
        )
        print(f"| `{arm}` | {kl:.2g} | {effective:.1%} | {left_out:.2%} |")
    if sys.argv[1:]:
        return
    copies = [_of_bfloat16(store, seed) for seed in expected.seeds]
    kl, effective = (np.mean([one[name.partition("/")[2]] for one in copies]) for name in MEASURES)
    print(f"| a bfloat16 copy samples | {kl:.2g} | {effective:.1%} | |")


def _record(store: Store, arm: str, seed: int, stage: str) -> Record:
    (recipe,) = recipes([f"experiment={arm}", f"seed={seed}"])
    (node,) = (node for node in recipe.nodes if node.name == stage)
    record = store.lookup(node.stage.name, node.fingerprint)
    if record is None:
        sys.exit(f"runs/store lacks seed {seed} of {arm}: run the command of this folder's page")
    return record


def _of_bfloat16(store: Store, seed: int) -> dict[str, float]:
    """The measures of one seed's SFT policy, on 300 validation problems."""
    (recipe,) = recipes([f"experiment={BASELINE}", f"seed={seed}", "benchmark=[validation]"])
    problems = draw_benchmark(recipe.source, recipe.root.benchmarks["validation"])
    path = _record(store, BASELINE, seed, "sft").path
    (policy, tokenizer), (copy, _) = load_policy(path, "float32"), load_policy(path, "bfloat16")
    prompts = prompt_tokens(tokenizer, [problem.model_prompt for problem in problems])
    sampling = Sampling(0.6, 1.0, 200)
    drawn = HFEngine(copy, tokenizer, 64).complete(prompts, sampling, range(len(prompts)))
    batch = completion_batch(
        [Example(ids, one.token_ids) for ids, one in zip(prompts, drawn, strict=True)]
    )
    with torch.no_grad():
        behavior = token_logprobs(policy, batch, sampling.temperature)
    engines = torch.tensor([value for one in drawn for value in one.logprobs])
    sums = mismatch_sums(behavior, engines, batch.trained_lengths, Band("token", 0.0, 2.0))
    return dict(mismatch_metrics({name: float(value) for name, value in sums.items()}))


if __name__ == "__main__":
    main()
