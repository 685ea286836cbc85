"""Every published dataset and benchmark that an option reads."""

from collections.abc import Mapping

from tests.support.benchmark_layouts import AIME24, AIME25, AMC23, GPQA_DIAMOND, MATH500, MINERVA
from tests.support.domain_layouts import ARC_CHALLENGE, ARC_EASY, IFEVAL, IFEVAL_LIKE, MMLU_PRO
from tests.support.layout import Layout
from tests.support.program_layouts import HUMANEVAL, MBPP
from tests.support.solution_layouts import AQUA_RAT, DEEPSCALER, GSM8K, MATH, METAMATHQA, NUMINAMATH
from tests.support.thought_layouts import (
    BESPOKE_STRATOS,
    OPENR1_MATH,
    OPENTHOUGHTS,
    OPENTHOUGHTS_DOMAINS,
)

# By the options that read them.
DATASETS: Mapping[str, Layout] = {
    "aqua_rat": AQUA_RAT,
    "arc_challenge": ARC_CHALLENGE,
    "arc_easy": ARC_EASY,
    "bespoke_stratos": BESPOKE_STRATOS,
    "deepscaler": DEEPSCALER,
    "gsm8k": GSM8K,
    "ifeval_like": IFEVAL_LIKE,
    "math": MATH,
    "mbpp": MBPP,
    "metamathqa": METAMATHQA,
    "numinamath": NUMINAMATH,
    "openr1_math": OPENR1_MATH,
    "openthoughts": OPENTHOUGHTS,
    "openthoughts_domains": OPENTHOUGHTS_DOMAINS,
}
BENCHMARKS: Mapping[str, Layout] = {
    "aime24": AIME24,
    "aime25": AIME25,
    "amc23": AMC23,
    "aqua_rat": AQUA_RAT,
    "arc_challenge": ARC_CHALLENGE,
    "arc_easy": ARC_EASY,
    "gpqa_diamond": GPQA_DIAMOND,
    "gsm8k": GSM8K,
    "humaneval": HUMANEVAL,
    "ifeval": IFEVAL,
    "math500": MATH500,
    "mbpp": MBPP,
    "minerva": MINERVA,
    "mmlu_pro": MMLU_PRO,
}
