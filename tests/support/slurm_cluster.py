"""A stand-in for SLURM: sbatch, srun, sacct and scancel, whose machines are processes of this one.

As in SLURM, sbatch reads its options from the script and returns at once, srun starts the command
on each machine, sacct prints a job's state and scancel sends SIGTERM. Unlike SLURM, it does not end
processes that a machine's command has left behind.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

_OPTION = re.compile(r"^#SBATCH --([\w-]+)(?:=(.*))?$", re.MULTILINE)


def main() -> None:
    state = Path(os.environ["SLURM_STAND_IN"])
    name, *words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    {"sbatch": sbatch, "batch": batch, "srun": srun, "sacct": sacct, "scancel": scancel}[name](
        state, words
    )


def install(folder: Path) -> dict[str, str]:
    """The environment of a machine that can submit jobs; `folder` is the cluster's memory."""
    (folder / "bin").mkdir(parents=True)
    for name in ("sbatch", "batch", "srun", "sacct", "scancel"):
        command = folder / "bin" / name
        command.write_text(f"#!{sys.executable}\n{Path(__file__).read_text(encoding='utf-8')}")
        command.chmod(0o755)
    return {"SLURM_STAND_IN": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def options_of(folder: Path, number: int) -> dict[str, str]:
    """The job's sbatch options."""
    return dict(_OPTION.findall((folder / f"{number}.sh").read_text(encoding="utf-8")))


def sbatch(state: Path, words: list[str]) -> None:
    number = 1 + len(list(state.glob("*.sh")))
    (state / f"{number}.sh").write_bytes(Path(words[-1]).read_bytes())
    (state / f"{number}.state").write_text("PENDING", encoding="utf-8")
    nodes = options_of(state, number)["nodes"]
    job_environment = {"JOB_ID": str(number), "NTASKS": nodes, "JOB_NUM_NODES": nodes}
    subprocess.Popen(
        [state / "bin" / "batch", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **{f"SLURM_{key}": value for key, value in job_environment.items()}},
    )
    print(f"Submitted batch job {number}")


def batch(state: Path, words: list[str]) -> None:
    state_file = state / f"{words[0]}.state"
    state_file.write_text("RUNNING", encoding="utf-8")
    process = subprocess.Popen(["bash", state / f"{words[0]}.sh"])

    def cancel(*_: object) -> None:
        state_file.write_text("CANCELLED by 0", encoding="utf-8")

    signal.signal(signal.SIGTERM, cancel)
    (state / f"{words[0]}.pid").write_text(str(os.getpid()), encoding="utf-8")
    code = process.wait()
    if state_file.read_text(encoding="utf-8") == "RUNNING":
        state_file.write_text("FAILED" if code else "COMPLETED", encoding="utf-8")


def srun(state: Path, words: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    places = {}
    while words[0].startswith("--"):
        option = words.pop(0)
        if option in ("--output", "--error"):
            places[option] = words.pop(0).replace("%j", os.environ["SLURM_JOB_ID"])
    tasks = []
    for number in range(int(os.environ["SLURM_NTASKS"])):
        logs = [places[option].replace("%t", str(number)) for option in ("--output", "--error")]
        where = {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number), "SLURM_LOCALID": "0"}
        where["SLURM_JOB_NODELIST"] = socket.gethostname()
        with open(logs[0], "a") as out, open(logs[1], "a") as err:
            task = subprocess.Popen(words, stdout=out, stderr=err, env={**os.environ, **where})
        tasks.append(task)
    sys.exit(max(abs(task.wait()) for task in tasks))


def sacct(state: Path, words: list[str]) -> None:
    print("JobID|State|NodeList")
    for number in (word for word in words if word.isdigit()):
        print(f"{number}|{(state / f'{number}.state').read_text(encoding='utf-8')}|here")


def scancel(state: Path, words: list[str]) -> None:
    os.killpg(int((state / f"{words[0]}.pid").read_text(encoding="utf-8")), signal.SIGTERM)


if __name__ == "__main__":
    main()
