"""The paper's own stage ladder, for orientation: most runs have another model and problems.

Phi-4-Mini-Reasoning, arXiv 2504.21233: pass@1 in percent at temperature 0.6 and top-p 0.95.
"""

from collections.abc import Mapping

# Keys are the names of our benchmarks.
LADDER: Mapping[str, Mapping[str, float]] = {
    "Phi-4-Mini": {"aime24": 10.0, "math500": 71.8, "gpqa_diamond": 36.9},
    "+ mid-training": {"aime24": 30.0, "math500": 82.9, "gpqa_diamond": 42.6},
    "+ SFT": {"aime24": 43.3, "math500": 89.3, "gpqa_diamond": 48.3},
    "+ Rollout DPO": {"aime24": 50.0, "math500": 93.6, "gpqa_diamond": 49.0},
    "+ RL": {"aime24": 57.5, "math500": 94.6, "gpqa_diamond": 52.0},
}
