"""Documents of real rows, in tokens, against the limits of a run's settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.commands.preflight import corpus_draw
from reasoning_lab.commands.root_config import RootConfig
from reasoning_lab.config.components import TeacherConfig
from reasoning_lab.config.model import ModelConfig
from reasoning_lab.data.tokens.document_length import document_lengths
from reasoning_lab.graph.recipe import Node
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import UserError

_COMPLETION_LIMIT = "max_new_tokens"
_DOCUMENTS = 96
# Of texts in English with formulas, where there is no tokenizer to count by.
_CHARACTERS_OF_TOKEN = 3.2
# More than this fraction of documents beyond a limit is worth a word.
_WARN_FRAC = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLimit:
    """How long the documents are that a limit is for.

    Attributes:
        key: The config key of the limit.
        tokens: The limit.
        of: What it limits: documents (prompt and completion) or completions.
        count: How many were counted.
        median: Tokens of the median.
        p90: Tokens that nine in ten do not exceed.
        longest: Tokens of the longest.
        beyond_frac: Fraction that is longer than the limit.
        counted: False = tokens are estimated from characters.
    """

    key: str
    tokens: int
    of: str
    count: int
    median: int
    p90: int
    longest: int
    beyond_frac: float
    counted: bool

    @property
    def complaint(self) -> str:
        """Why the limit cannot be meant; empty = it can."""
        if self.beyond_frac < 1.0:
            return ""
        return (
            f"{self.key}={self.tokens}: none of {self.count} {self.of} fits, whose median has "
            f"{self._about}{self.median:,} tokens; raise it"
        )

    @property
    def warning(self) -> str:
        """What many documents lose; empty = few do."""
        if not _WARN_FRAC < self.beyond_frac < 1.0:
            return ""
        return (
            f"{self.key}={self.tokens}: {self.beyond_frac:.0%} of {self.count} {self.of} have "
            f"more tokens"
        )

    @property
    def _about(self) -> str:
        return "" if self.counted else "about "


def length_limits(root: RootConfig, sample: Recipe, model: ModelConfig) -> list[LengthLimit]:
    """Every limit of the run's settings, against what the teacher writes about sampled problems.

    Args:
        root: The run's settings.
        sample: A recipe with the same stages, whose source has a few whole rows.
        model: By whose tokenizer tokens are counted, if it is on this machine.
    """
    limits: list[LengthLimit] = []
    completions: list[str] = []
    for node in sample.nodes:
        stage = root.stages.get(node.name)
        if stage is None:
            continue
        pairs = _documents(sample, node)
        completions = [completion for _, completion in pairs] or completions
        limit = stage.document_limit(f"stages.{node.name}")
        if limit is not None and pairs:
            texts = [f"{prompt}{completion}" for prompt, completion in pairs]
            limits.append(_measured(limit.key, limit.tokens, "documents", texts, model))
        if completions:
            limits += [
                _measured(key, tokens, "solutions", completions, model)
                for key, tokens in _completion_limits(stage, f"stages.{node.name}")
            ]
    if completions:
        limits += [
            _measured(
                f"benchmarks.{name}.sampling.{_COMPLETION_LIMIT}",
                benchmark.sampling.completion_tokens,
                "solutions",
                completions,
                model,
            )
            for name, benchmark in root.benchmarks.items()
        ]
    return limits


def _documents(sample: Recipe, node: Node) -> list[tuple[str, str]]:
    """Prompts and what the teacher of the corpus that reaches the node writes about them."""
    draw = corpus_draw(node)
    if draw is None or draw.teacher is None:
        return []
    teacher = draw.teacher.build()
    seed = sample.root.seed
    documents = []
    # More than the small recipe draws, where there are more.
    available = sample.source.available(draw.split, draw.levels)
    count = max(draw.count or 0, min(_DOCUMENTS, available or 0))
    try:
        for problem in sample.source.problems(draw.split, draw.levels, count, seed):
            if not teacher.refusal(problem):
                texts = teacher.preview(problem, seed)
                documents += [(problem.transcript, text) for text in texts]
            if len(documents) >= _DOCUMENTS:
                break
    except UserError:  # Too few: what a stage says of it.
        pass
    return documents


def _completion_limits(stage: LabStage, key: str) -> Iterator[tuple[str, int]]:
    """Keys and values of `max_new_tokens` in a stage's knobs, but for its teacher's own."""

    def of(value: Any, place: str) -> Iterator[tuple[str, int]]:
        if isinstance(value, TeacherConfig) or not is_dataclass(value):
            return
        for item in fields(value):
            content = getattr(value, item.name)
            if item.name == _COMPLETION_LIMIT and isinstance(content, int):
                yield f"{place}.{item.name}", content
            yield from of(content, f"{place}.{item.name}")

    return of(stage, key)


def _measured(
    key: str, tokens: int, of: str, texts: Sequence[str], model: ModelConfig
) -> LengthLimit:
    lengths = document_lengths(texts, model)
    counted = lengths is not None
    if lengths is None:
        lengths = [round(len(text) / _CHARACTERS_OF_TOKEN) for text in texts]
    quantiles = np.quantile(lengths, [0.5, 0.9, 1.0]).round().astype(int).tolist()
    median, p90, longest = quantiles
    beyond = sum(length > tokens for length in lengths) / len(lengths)
    return LengthLimit(
        key=key,
        tokens=tokens,
        of=of,
        count=len(lengths),
        median=median,
        p90=p90,
        longest=longest,
        beyond_frac=beyond,
        counted=counted,
    )
