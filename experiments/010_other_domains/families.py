"""pass@1 by family after RL on a domain alone, and what its answers are elsewhere, by the outcomes.

python experiments/010_other_domains/families.py
"""

from collections import Counter
from pathlib import Path

from pyarrow import parquet

EXPERIMENT = "experiment=010_other_domains"


def main() -> None:
    """Print a line for each arm that trained on one domain."""
    rows = parquet.read_table(Path(__file__).with_name("outcomes.parquet")).to_pylist()
    for domain in ("logic", "strings", "graphs"):
        arm = [
            row
            for row in rows
            if (row["variant"], row["stage"]) == (f"{EXPERIMENT}/{domain}", "rl")
        ]
        here = [row for row in arm if row["domain"] == domain]
        elsewhere = [row["verdict"] for row in arm if row["domain"] != domain]
        drawn = Counter(row["family"] for row in here)
        right = Counter(row["family"] for row in here if row["verdict"] == "correct")
        shares = ", ".join(f"{name} {right[name] / drawn[name]:.0%}" for name in sorted(drawn))
        unread = elsewhere.count("unparseable") / len(elsewhere)
        print(f"{domain}: {shares}; elsewhere {unread:.0%} without an answer that can be read")


if __name__ == "__main__":
    main()
