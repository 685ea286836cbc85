"""On-policy distillation: reinforcement learning in which a teacher grades each token.

The student samples and is verified as in `module.py`. The teacher reads what trains, and its
advantages (`reasoning_lab.losses.distillation`) are added to those of the rewards in `update.py`.
"""

from pathlib import Path

from reasoning_lab.graph.stage import Metrics
from reasoning_lab.models.policy import load_model
from reasoning_lab.models.policy_artifact import Policy
from reasoning_lab.models.same_tokenizer import require_same_tokenizer
from reasoning_lab.stages.rl import module
from reasoning_lab.stages.rl.graders import FrozenPolicy, Teacher
from reasoning_lab.stages.rl.stage import OPDStage
from reasoning_lab.training.context import StageContext


def run(
    config: OPDStage, context: StageContext, policy: Policy, teacher: Policy | None = None
) -> Metrics:
    """Train the policy on its teacher's grades and write it.

    Args:
        config, context: The stage's.
        policy: It learns.
        teacher: What the stage makes that `config.teacher` names; None = it names a checkpoint.

    Raises:
        UserError: The teacher's tokens are not the policy's, or it cannot be loaded.
    """
    grader = teacher or Policy(Path(config.teacher.path or ""), revision=config.teacher.revision)
    named = config.teacher.named(f"stages.{context.name}.teacher")
    require_same_tokenizer(policy, grader, context.model.system_prompt, named)
    model, _ = load_model(
        grader.path,
        config.teacher.dtype or context.model.sampling_dtype,
        grader.revision,
        named.partition("=")[0],
        context.hardware.kernels,
    )
    return module.run(config, context, policy, Teacher(FrozenPolicy(model), config.reward_weight))
