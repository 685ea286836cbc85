"""Real vLLMs validate a policy while it is fine-tuned: within the trainer, and beside each rank."""

from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_lab.config.model import ModelConfig
from reasoning_lab.config.optimization import ConstantConfig
from reasoning_lab.config.validation import OfflineValidationConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.data.sources.config import FileConfig
from reasoning_lab.launch.job import launched, run_job
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.stages.sft.stage import SFTStage
from reasoning_lab.tracking.curves import read_history
from reasoning_lab.training.job import Job
from reasoning_lab.types import Completion, Problem, Rollout, Verdict
from reasoning_lab.verify import Verifier
from tests.sampling.test_vllm import PROMPTS, sums, tiny  # noqa: F401 - a fixture
from tests.sampling.test_vllm_launcher import HARDWARE
from tests.support.engine_processes import engines_of
from tests.support.rl import TableTracker
from tests.support.stages import optimization

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

VALIDATION = OfflineValidationConfig(
    count=6, every_steps=3, temperature=0.0, top_p=1.0, max_new_tokens=20, levels=[1]
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """One right answer to every prompt."""
    corpus = Corpus(tmp_path_factory.mktemp("corpus"))
    right = Completion([], "\\boxed{1}")
    problems = [Problem(prompt, "1", "math", "sum") for prompt in PROMPTS]
    write_rollouts(
        corpus.accepted_file,
        [Rollout(problem, right, "1", Verdict.CORRECT, "sage") for problem in problems],
    )
    return corpus


def validated(
    folder: Path,
    policy: Path,
    corpus: Corpus,
    engine: str,
    devices: int = 1,
) -> tuple[Job, TableTracker]:
    """A fine-tuning that is validated by the engine, in this process if there is one device."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    stage = SFTStage(
        levels=[1],
        count="all",
        optimization=optimization(
            learning_rate=1e-2, length="12 steps", batch_size=6, schedule=ConstantConfig()
        ),
        validation=replace(VALIDATION, rollout_engine=engine),
    )
    job = Job(
        name="sft",
        stage=stage,
        seed=3,
        out_dir=folder / "out",
        work_dir=folder / "work",
        inputs={"policy": Policy(policy), "corpus": corpus},
        model=ModelConfig(),
        data=FileConfig(path=str(sums(folder)), test_frac=0.0, validation_frac=0.5),
        hardware=replace(HARDWARE, devices=devices, strategy="single" if devices == 1 else "ddp"),
        benchmarks={},
        tracking=None,
    )
    tracker = TableTracker()
    if devices > 1:
        launched(job)
        return job, tracker
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        run_job(job, job.data.build(), {}, verifier, tracker)
    return job, tracker


def test_vllm_validates_what_transformers_would(
    tiny: Path,  # noqa: F811
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    here, expected = validated(tmp_path / "here", tiny, corpus, "hf")
    inside, seen = validated(tmp_path / "inside", tiny, corpus, "vllm")
    pair, _ = validated(tmp_path / "pair", tiny, corpus, "vllm", devices=2)
    texts = [[one.completion.text for one in rollouts] for rollouts, _ in expected.tables]
    assert [[one.completion.text for one in rollouts] for rollouts, _ in seen.tables] == texts
    curve = read_history(here.out_dir)["val/pass@1"]
    # The policy learns the answer, so one that is an update behind would be seen.
    assert curve[0] == 0.0
    assert curve[12] == 1.0
    assert read_history(inside.out_dir)["val/pass@1"] == curve
    assert read_history(pair.out_dir)["val/pass@1"] == curve
    assert not engines_of(pair.work_dir)
