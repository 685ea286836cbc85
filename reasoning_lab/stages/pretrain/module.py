"""Train tokenizer and base policy from scratch: single arithmetic steps and direct answers.

The stand-in for a pretrained checkpoint: it knows the language of the problems, the answer
format and the results of single steps, and does not reason. Recipes that start from a real
checkpoint have no such stage.
"""

import random
from collections.abc import Sequence

from reasoning_lab.data.teachers.config import ProceduralTeacherConfig
from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.data.trained_prompts import TrainedPrompts
from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.chat import set_system_prompt
from reasoning_lab.models.markup import plain_tokens
from reasoning_lab.models.policy import build_policy
from reasoning_lab.models.tokenizer import (
    completion_tokens,
    prompt_tokens,
    train_tokenizer,
)
from reasoning_lab.stages.pretrain.stage import PretrainStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.next_token_training import train_next_token
from reasoning_lab.training.probe import check_student
from reasoning_lab.types import Example, Split, UserError
from reasoning_lab.verify.extraction import boxed

_RESULT = " = "


def run(config: PretrainStage, context: StageContext) -> Metrics:
    """Write the base policy; see the module's docstring."""
    problems = context.problems(Split.TRAIN, config.problems)
    teacher = ProceduralTeacherConfig(noticed_slip_rate=0.0, unnoticed_slip_rate=0.0)
    thoughts = [teacher.texts(problem, 1, context.seed)[0] for problem in problems]
    texts = [*(problem.prompt for problem in problems), *thoughts, "Wait, "]
    tokenizer = train_tokenizer(texts, context.model.vocab_size)
    if context.model.system_prompt is not None:
        set_system_prompt(tokenizer, context.model.system_prompt, "model.system_prompt")
    prompts = prompt_tokens(tokenizer, [problem.model_prompt for problem in problems])
    golds = completion_tokens(tokenizer, [boxed(problem.gold) for problem in problems])
    answers = list(map(Example, prompts, golds))
    steps = single_steps(thoughts)
    distinct = sorted(set(steps))
    operations = plain_tokens(tokenizer, [operation for operation, _ in distinct])
    results = plain_tokens(tokenizer, [result for _, result in distinct])
    example_of = dict(zip(distinct, map(Example, operations, results), strict=True))
    step_documents = config.step_documents(len(answers))
    if step_documents and not steps:
        raise UserError(
            f"stages.{context.name}.steps_frac: no line of the teacher's chains has '{_RESULT}', "
            "so there are no single steps; set it to 0, or let the solver write results behind that"
        )
    sheets = worksheets(steps, step_documents, config.steps_per_row, context.seed)
    hardware, model = context.hardware, context.model
    policy = build_policy(
        model.architecture, tokenizer, model.dtype, context.seed, hardware.kernels
    )
    check_student(policy, hardware, context.name)
    documents = [
        *(document_of(answer) for answer in answers),
        *(document_of(*(example_of[step] for step in sheet)) for sheet in sheets),
    ]
    table = TokenTable.of_documents(documents)
    metrics = train_next_token(policy, table, tokenizer, config.optimization, context)
    TrainedPrompts.of(problems).write(context.out_dir)
    return {**metrics, "examples": len(answers) + sum(map(len, sheets))}


def single_steps(thoughts: Sequence[str]) -> list[tuple[str, str]]:
    """Every line of the thoughts that computes something, as (what, result)."""
    lines = (line for thought in thoughts for line in thought.splitlines())
    split = (line.rpartition(_RESULT) for line in lines if _RESULT in line)
    return [(left + _RESULT, result + "\n") for left, _, result in split]


def worksheets(
    steps: Sequence[tuple[str, str]], rows: int, steps_per_row: int, seed: int
) -> list[list[tuple[str, str]]]:
    """`rows` lists of `steps_per_row` random steps; frequent steps are drawn more often."""
    drawn = random.Random(seed).choices(steps, k=rows * steps_per_row)
    return [drawn[at : at + steps_per_row] for at in range(0, len(drawn), steps_per_row)]
