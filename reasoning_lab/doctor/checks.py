"""Every check, in the order in which they run: a later one may need an earlier one's success."""

from reasoning_lab.doctor.engine_checks import ENGINE_CHECKS
from reasoning_lab.doctor.model_checks import FORWARD_CHECKS, WEIGHT_CHECKS
from reasoning_lab.doctor.template_checks import TEMPLATE_CHECKS
from reasoning_lab.doctor.tokenizer_checks import EMBEDDING_CHECKS, TOKENIZER_CHECKS
from reasoning_lab.doctor.verifier_checks import VERIFIER_CHECKS

CHECKS = (
    *TOKENIZER_CHECKS,
    *TEMPLATE_CHECKS,
    *WEIGHT_CHECKS,
    *EMBEDDING_CHECKS,
    *FORWARD_CHECKS,
    *ENGINE_CHECKS,
    *VERIFIER_CHECKS,
)
