"""A dataset on its whole way: its rows to problems, verdicts, a corpus, its curation, and tokens.

The stages do the work. The same steps read a stand-in's rows here and the hub's with `-m hub`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reasoning_lab.config.folder import CONF
from reasoning_lab.config.problems import ProblemsConfig
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.sources.problem_source import ProblemSource
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.models.tokenizer import prompt_tokens, train_tokenizer
from reasoning_lab.stages.curate.stage import CurateStage
from reasoning_lab.stages.distill.stage import DistillStage
from reasoning_lab.types import Problem, Split, Verdict
from reasoning_lab.verify import Verifier
from tests.support.contexts import data_context
from tests.support.sources import write_lines

LEVELS = range(1, 11)
# What no dataset has: curation asks for a benchmark that the corpus must not hold.
HELD_OUT = "Which of nine green umbrellas did the seventh lighthouse keeper lend to his cousin?"


@dataclass
class Reading:
    """What became of a dataset's rows.

    Attributes:
        rows: The counts of rows, as `artifact.json` has them.
        problems: All problems of all splits.
        unreadable: Those whose checker cannot read the gold.
        prompt_tokens: Tokens of each prompt.
        rollouts: What became of the recorded solutions, by reason or `accepted`.
        curated: Accepted rollouts that curation keeps.
        documents: Tokens of each document that a stage would train on.
        trained: Those of them that carry loss.
    """

    rows: dict[str, Any]
    problems: list[Problem]
    unreadable: list[Problem]
    prompt_tokens: list[int]
    rollouts: Counter[str] = field(default_factory=Counter)
    curated: int = 0
    documents: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


def read_dataset(
    source: ProblemSource, levels: Sequence[int], folder: Path, verifier: Verifier
) -> Reading:
    """Take the rows of a source through every step that does not train."""
    ledger = Ledger()
    source.record_rows(ledger)
    available = {split: source.available(split, levels) or 0 for split in Split}
    problems = [
        problem
        for split, count in available.items()
        for problem in source.problems(split, levels, count, 0)
    ]
    tokenizer = train_tokenizer([problem.prompt for problem in problems], 400)
    reading = Reading(
        rows=ledger.as_json()["rows"],
        problems=problems,
        unreadable=verifier.unreadable_golds(problems),
        prompt_tokens=list(map(len, prompt_tokens(tokenizer, [p.prompt for p in problems]))),
    )
    if available[Split.TRAIN] and "solutions" in problems[0].metadata:
        _distil(reading, source, levels, available[Split.TRAIN], folder, verifier)
    return reading


def _distil(
    reading: Reading,
    source: ProblemSource,
    levels: Sequence[int],
    count: int,
    folder: Path,
    verifier: Verifier,
) -> None:
    folders = {name: folder / name for name in ("distill", "curate")}
    for path in folders.values():
        path.mkdir(parents=True)
    context = data_context(folders["distill"], "distill", source, verifier)
    draw = ProblemsConfig(list(levels), count)
    distill = DistillStage(teacher=RecordedTeacherConfig(), problems=draw, validation=0, rollouts=4)
    replace(context, stage=distill).run_stage()
    flow = context.ledger.flows["rollouts"]
    reading.rollouts = Counter(flow.dropped) + Counter(accepted=flow.passed)
    corpus = Corpus(context.out_dir)
    steps = OmegaConf.to_container(OmegaConf.load(CONF / "stage" / "curate.yaml"))
    assert isinstance(steps, dict)
    curation = data_context(folders["curate"], "curate", source, verifier)
    held_out = write_lines(folder / "held_out.jsonl", [{"prompt": HELD_OUT}])
    stage = CurateStage(steps=steps["steps"], files=[str(held_out)])
    replace(curation, stage=stage, inputs={Corpus.kind: corpus}).run_stage()
    curated = Corpus(curation.out_dir).accepted()
    texts = [rollout.completion.text for rollout in curated]
    assert all(rollout.verdict is Verdict.CORRECT for rollout in curated)
    reading.curated = len(curated)
    table = curation.documents(curated, train_tokenizer(texts, 400))
    reading.documents, reading.trained = table.lengths.tolist(), table.trained_tokens.tolist()
