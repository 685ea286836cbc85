"""What a recipe asks of its data, held against the data before the first stage trains.

Each stage's config declares the problems that it draws, the levels that it wants of a corpus and
the longest document that it takes. Here the problems are drawn, their golds read, their families
shown to the teacher and a few documents written and counted, for every stage that would run. All
complaints come at once. `plan` asks the same, of data that is on this machine.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from reasoning_lab.commands.compose import Recipe
from reasoning_lab.config.components import SourceConfig
from reasoning_lab.config.fields import ALL
from reasoning_lab.config.problems import WHOLE_SPLIT, CorpusSelection, ProblemDraw, in_words
from reasoning_lab.data.artifacts import Corpus
from reasoning_lab.data.sources.config import MixtureConfig, ReasoningGymConfig
from reasoning_lab.data.sources.mixture import weighted
from reasoning_lab.data.sources.problem_source import ProblemSource, draw_benchmark, number_of
from reasoning_lab.data.sources.streams import stream_of
from reasoning_lab.data.sources.unreadable import ReadableGoldFilter, UnreadablePolicy, errors_under
from reasoning_lab.data.teachers.teacher import Teacher
from reasoning_lab.data.tokens.document_length import shortest_document
from reasoning_lab.data.trained_prompts import seen_kinds
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.graph.recipe import Node
from reasoning_lab.graph.store import Store
from reasoning_lab.training.stage import LabStage
from reasoning_lab.types import Problem, Split, UserError
from reasoning_lab.verify import Verifier, build_verifier

_SAMPLED_PROBLEMS = 64
# Of a generator, which makes problems as they are asked for; one that has so many hardly runs out.
_MOST_GENERATED = 2_000


@dataclass(frozen=True, slots=True)
class DrawnProblems:
    """What drawing a stage's problems showed.

    Attributes:
        refusal: Why they cannot be drawn; empty = they can.
        examples: The first problem of each family.
        kinds: The families with their levels.
        levels: How many there are at each level.
        sample: The first few, of which documents are written.
    """

    refusal: str = ""
    examples: Mapping[str, Problem] = field(default_factory=dict)
    levels: Mapping[int, int] = field(default_factory=dict)
    sample: Sequence[Problem] = ()
    kinds: Collection[tuple[str, int]] = ()


# By source, split and levels, then by count: a sweep's runs ask for the same, one after the other.
_DRAWS: dict[str, dict[int, DrawnProblems]] = {}


class Preflight:
    """Checks recipes; the same draw of several recipes is made once in a process.

    Args:
        verifier: Reads the golds.
        local_only: True = data that is not on this machine is noted, not fetched.

    Attributes:
        unchecked: Sources that were not looked at, by their config key.
    """

    def __init__(self, verifier: Verifier, local_only: bool = False) -> None:
        self._verifier = verifier
        self._local_only = local_only
        self.unchecked: dict[str, None] = {}

    def require(self, recipes: Iterable[Recipe]) -> None:
        """Refuse recipes whose data does not give what they ask.

        Raises:
            UserError: One line for each complaint.
        """
        complaints = dict.fromkeys(line for recipe in recipes for line in self.complaints(recipe))
        if complaints:
            raise UserError("\n".join(complaints))

    def complaints(self, recipe: Recipe) -> list[str]:
        """One sentence for each thing that the data lacks, of every node that would run."""
        store = Store(Path(recipe.root.paths.runs) / "store")
        lines: list[str] = []
        nodes = [
            node for node in recipe.nodes if store.record(node.stage.name, node.fingerprint) is None
        ]
        # A larger draw stands for the smaller ones of its kind.
        for draw in sorted((d for n in nodes for d in _draws(n)), key=lambda d: -(d.count or 0)):
            self._drawn(recipe, draw, or_larger=True)
        for node in nodes:
            for draw in _draws(node):
                lines += self._draw_complaints(recipe, draw)
            lines += self._corpus_complaints(recipe, node)
        lines += self._seen_complaints(recipe, nodes)
        return list(dict.fromkeys(lines))

    def _draw_complaints(self, recipe: Recipe, draw: ProblemDraw) -> Iterator[str]:
        drawn = self._drawn(recipe, draw, or_larger=True)
        if drawn.refusal:
            named = drawn.refusal.startswith(draw.key)
            yield drawn.refusal if named else f"{draw.key}: {drawn.refusal}"
        if draw.teacher is None:
            return
        teacher: Teacher = draw.teacher.build()
        refusals = (teacher.refusal(problem) for problem in drawn.examples.values())
        yield from (f"{draw.key}: {refusal}" for refusal in dict.fromkeys(refusals) if refusal)

    def _corpus_complaints(self, recipe: Recipe, node: Node) -> Iterator[str]:
        """Levels, counts and lengths that the corpus which reaches `node` cannot have."""
        draw = corpus_draw(node)
        if draw is None or draw.teacher is None:
            return
        drawn = self._drawn(recipe, draw)
        if drawn.refusal or not drawn.levels:
            return
        key = f"stages.{node.name}"
        for selection in _lab_stage(node).corpus_selections(key):
            yield from _selection_complaints(selection, draw, drawn.levels)
        limit = _lab_stage(node).document_limit(key)
        if limit is None:
            return
        teacher: Teacher = draw.teacher.build()
        texts = [
            f"{problem.transcript}{text}"
            for problem in drawn.sample
            if not teacher.refusal(problem)
            for text in teacher.preview(problem, recipe.root.seed)
        ]
        shortest = shortest_document(texts, recipe.root.model)
        if shortest is not None and shortest > limit.tokens:
            yield (
                f"{limit.key}={limit.tokens}: none of {len(texts)} documents of this corpus fits; "
                f"the shortest has about {shortest:,} tokens; raise it"
            )

    def _seen_complaints(self, recipe: Recipe, nodes: Sequence[Node]) -> Iterator[str]:
        """Benchmarks of which a stage draws what they must be the first to show."""
        draws = [draw for node in recipe.nodes for draw in _draws(node)]
        training = [draw for draw in draws if draw.split is Split.TRAIN]
        for benchmark in (draw for node in nodes for draw in _draws(node)):
            if benchmark.benchmark is None:
                continue
            unseen = recipe.root.benchmarks[benchmark.benchmark].unseen
            held_out = self._drawn(recipe, benchmark, or_larger=True).kinds
            for draw in training if unseen != "prompts" else ():
                trained = self._drawn(recipe, draw, or_larger=True).kinds
                if seen := seen_kinds(held_out, trained, unseen):
                    yield (
                        f"{benchmark.key}.unseen={unseen}: {draw.key} draws {seen}; take that out "
                        "of the stage's data, or leave this benchmark out"
                    )

    def _drawn(self, recipe: Recipe, draw: ProblemDraw, or_larger: bool = False) -> DrawnProblems:
        """What drawing shows; the seed decides which problems come, not whether there are enough.

        `or_larger`: a larger draw of the same kind, if one succeeded, stands for this one.
        """
        source, options = recipe.source, recipe.root.data
        golds: tuple[str, float] | None = None
        if draw.benchmark is not None:
            benchmark = recipe.root.benchmarks[draw.benchmark]
            source = recipe.benchmark_sources.get(draw.benchmark, source)
            options = benchmark.data or options
            golds = (benchmark.unreadable, benchmark.max_unreadable_frac)
        if self._local_only and not source.is_local():
            self.unchecked[draw.key] = None
            return DrawnProblems()
        levels = None if draw.levels is None else list(draw.levels)
        if _is_generated(options):
            # They are sampled, and each of their streams has what any other has.
            draw = replace(draw, stream=WHOLE_SPLIT)
        stream = stream_of(source, draw.stream, draw.key)
        weights, bounds = draw.weights, list(draw.stream)
        kind = repr((options, source.content(), draw.split, levels, weights, bounds, golds))
        try:
            count = number_of(stream, draw.split, levels, draw.count or ALL, draw.key)
        except UserError as error:
            return DrawnProblems(str(error).removeprefix(f"{draw.key}: "))
        drawn = _DRAWS.setdefault(kind, {})
        if or_larger:
            larger = (d for n, d in drawn.items() if n >= count and not d.refusal)
            if (one := next(larger, None)) is not None:
                return one
        if count not in drawn:
            drawn[count] = self._draw(recipe, source, draw, count)
        return drawn[count]

    def _draw(
        self, recipe: Recipe, source: ProblemSource, draw: ProblemDraw, wanted: int
    ) -> DrawnProblems:
        benchmark = None if draw.benchmark is None else recipe.root.benchmarks[draw.benchmark]
        options = recipe.root.data if benchmark is None else benchmark.data or recipe.root.data
        generated = _is_generated(options)

        def policy_of(problem: Problem) -> UnreadablePolicy:
            if benchmark is None:
                return source.unreadable(problem) or UnreadablePolicy("refuse", 0.0, "data")
            return UnreadablePolicy(benchmark.unreadable, benchmark.max_unreadable_frac, draw.key)

        def problems() -> Iterator[Problem]:
            if benchmark is not None:
                return draw_benchmark(source, benchmark)
            count = min(wanted, _MOST_GENERATED) if generated else wanted
            seed = recipe.root.seed if draw.seed is None else draw.seed
            drawable = weighted(source, draw.weights, draw.stream, draw.key)
            return drawable.problems(draw.split, draw.levels, count, seed)

        examples: dict[str, Problem] = {}
        levels: Counter[int] = Counter()
        kinds: set[tuple[str, int]] = set()
        sample: list[Problem] = []
        golds = ReadableGoldFilter(self._verifier, Ledger(), policy_of)
        has_source = benchmark is not None and benchmark.data is not None
        refusal = ""
        try:
            with errors_under(f"{draw.key}.data") if has_source else nullcontext():
                for problem in problems() if generated else golds.filter(problems()):
                    examples.setdefault(problem.family, problem)
                    levels[problem.level] += 1
                    kinds.add((problem.family, problem.level))
                    if len(sample) < _SAMPLED_PROBLEMS:
                        sample.append(problem)
        except UserError as error:
            refusal = str(error)
        return DrawnProblems(refusal, examples, levels, sample, kinds)


def _is_generated(options: SourceConfig) -> bool:
    """Whether generators alone make the problems, whose families read the golds that they give."""
    if isinstance(options, MixtureConfig):
        return all(map(_is_generated, options.sources.values()))
    return isinstance(options, ReasoningGymConfig)


def _selection_complaints(
    selection: CorpusSelection, draw: ProblemDraw, levels: Mapping[int, int]
) -> Iterator[str]:
    """What a stage selects of a corpus that `draw` cannot bring; it has `levels` by number."""
    least, possible = selection.least, {*levels, *(draw.corpus_levels or ())}
    problems = sum(
        count
        for level, count in levels.items()
        if selection.levels is None or level in selection.levels
    )
    # Pass rates, of which nothing is known yet, may bring any problem to such a level.
    if draw.corpus_levels and (selection.levels is None or possible & {*selection.levels}):
        problems = sum(levels.values())
    if problems < least:
        there = f"{problems:,} problems are" if problems else "no problem is"
        yield (
            f"{selection.key}: {there} at {in_words(selection.levels)} of the corpus, and "
            f"{least:,} are needed; {draw.key} brings levels {sorted(possible)}; choose among "
            "these, or ask for fewer"
        )


def _lab_stage(node: Node) -> LabStage:
    assert isinstance(node.stage, LabStage)
    return node.stage


def _draws(node: Node) -> Sequence[ProblemDraw]:
    """The problems that the node draws."""
    return _lab_stage(node).problem_draws(f"stages.{node.name}")


def corpus_draw(node: Node) -> ProblemDraw | None:
    """The problems of the corpus that reaches the node; None = no corpus does."""
    maker = node.inputs.get(Corpus.kind)
    while maker is not None:
        for draw in _draws(maker):
            if draw.teacher is not None:
                return draw
        maker = maker.inputs.get(Corpus.kind)
    return None


def check_data(recipes: Sequence[Recipe], local_only: bool = False) -> list[str]:
    """Check recipes against their data.

    Args:
        recipes: Recipes that share one `hardware`.
        local_only: True = skip data that is not on this machine.

    Returns:
        Config keys whose data was skipped.

    Raises:
        UserError: The data lacks something; each complaint is one line.
    """
    if not recipes:
        return []
    with build_verifier(recipes[0].root.hardware) as verifier:
        preflight = Preflight(verifier, local_only)
        preflight.require(recipes)
    return list(preflight.unchecked)
