"""Train tokenizer and base policy from scratch on direct answers.

The stand-in for a pretrained checkpoint: it knows the language of the problems, the answer
format and easy one-step results, and does not reason. Recipes that start from a real
checkpoint have no such stage.
"""

from collections.abc import Iterator, Sequence

from reasoning_lab.data.batches import Example
from reasoning_lab.data.corpus import write_prompt_ids
from reasoning_lab.data.teacher import ProceduralTeacher, boxed
from reasoning_lab.models.policy import build_policy, save_policy
from reasoning_lab.models.tokenizer import completion_tokens, prompt_tokens, train_tokenizer
from reasoning_lab.stages.base import Metrics, StageContext
from reasoning_lab.stages.pretrain.config import PretrainConfig
from reasoning_lab.stages.tokens import train_padded
from reasoning_lab.types import Problem, Split


def run(config: PretrainConfig, context: StageContext) -> Metrics:
    """Write the base policy; see the module's docstring."""
    problems = context.source.problems(
        Split.TRAIN, config.problems.levels, config.problems.count, context.seed
    )
    tokenizer = train_tokenizer(_texts(problems, context.seed), context.model.vocab_size)
    prompts = prompt_tokens(tokenizer, [problem.prompt for problem in problems])
    answers = completion_tokens(tokenizer, [boxed(problem.gold) for problem in problems])
    examples = [Example(*pair) for pair in zip(prompts, answers, strict=True)]
    policy = build_policy(context.model.architecture, tokenizer, context.model.dtype, context.seed)
    metrics = train_padded(
        policy, examples, tokenizer.pad_token_id, config.optimization, context
    )
    save_policy(policy, tokenizer, context.out_dir)
    write_prompt_ids(context.out_dir, problems)
    return metrics


def _texts(problems: Sequence[Problem], seed: int) -> Iterator[str]:
    """What the tokenizer learns its words from: prompts, answers and the words of a thought."""
    teacher = ProceduralTeacher(noticed_slip_rate=0.1, unnoticed_slip_rate=0.0)
    for problem in problems:
        yield problem.prompt
        yield from teacher.rollouts(problem, 1, seed)
