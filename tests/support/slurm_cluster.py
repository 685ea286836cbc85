"""A stand-in for SLURM's commands, whose machines are processes of this one.

As in SLURM, sbatch reads its options from the script and returns at once, and srun starts the
program on each machine. A job is warned before its time limit, and killed at it. scancel and a
requeue send SIGTERM to all processes of a job and SIGKILL later. A preemption with a grace period
sends SIGTERM to what srun has started, and requeues the job after it. squeue forgets a job that has
ended, and sacct does not. Unlike in SLURM, a minute of a time limit may be shorter, and a machine
has room for everything.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_OPTION = re.compile(r"^#SBATCH --([\w-]+)(?:=(.*))?$", re.MULTILINE)
_COMMANDS = ("sbatch", "batch", "srun", "squeue", "sacct", "scontrol", "scancel")
_FOLDER, _MINUTE_S = "CLUSTER_STAND_IN", "CLUSTER_STAND_IN_MINUTE_S"
# Between SIGTERM and SIGKILL, and between a requeue and the next start.
_KILL_WAIT_S, _REQUEUE_WAIT_S = 5.0, 0.5
_POLL_S = 0.05
_INVALID = "slurm_load_jobs error: Invalid job id specified"


def main() -> None:
    state = Path(os.environ[_FOLDER])
    name, *words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    sys.exit(globals()[name](state, words))


def install(folder: Path, minute_s: float = 60.0) -> dict[str, str]:
    """The environment of a machine that can submit jobs.

    `folder` is the cluster's memory; `minute_s` is how long a minute of a time limit takes.
    """
    (folder / "bin").mkdir(parents=True)
    for name in _COMMANDS:
        command = folder / "bin" / name
        command.write_text(f"#!{sys.executable}\n{Path(__file__).read_text(encoding='utf-8')}")
        command.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {_FOLDER: str(folder), _MINUTE_S: str(minute_s), "PATH": path}


def options_of(folder: Path, number: int) -> dict[str, str]:
    """The job's sbatch options."""
    return dict(_OPTION.findall((folder / f"{number}.sh").read_text(encoding="utf-8")))


def jobs_of(folder: Path) -> list[int]:
    """The numbers of all jobs, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.sh"))


def record_of(folder: Path, number: int) -> dict[str, object]:
    """The job's state and how often it was requeued."""
    content: dict[str, object] = json.loads((folder / f"{number}.json").read_text("utf-8"))
    return content


def ask(folder: Path, number: int, request: str) -> None:
    """Ask for something that happens to a job.

    `preempt SECONDS` requeues it in so many seconds. `limit SECONDS` warns it, and its time is over
    so much later. `lose` kills its machines without a word. `requeue` and `cancel` are commands.
    """
    _write(folder / f"{number}.request", request)


def sbatch(state: Path, words: list[str]) -> int:
    number = 1 + len(jobs_of(state))
    (state / f"{number}.sh").write_bytes(Path(words[-1]).read_bytes())
    _write(state / f"{number}.json", json.dumps({"state": "PENDING", "restarts": 0}))
    subprocess.Popen(
        [state / "bin" / "batch", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(number if "--parsable" in words else f"Submitted batch job {number}")
    return 0


def batch(state: Path, words: list[str]) -> int:
    """A job from its submission to its end; what slurmctld and slurmd do."""
    number, restarts = int(words[0]), 0
    options = options_of(state, number)
    while True:
        end = _start(state, number, options, restarts)
        if end != "REQUEUED":
            _write(state / f"{number}.json", json.dumps({"state": end, "restarts": restarts}))
            return 0
        restarts += 1
        record = {"state": "PENDING", "restarts": restarts}
        _write(state / f"{number}.json", json.dumps(record))
        deadline = time.monotonic() + _REQUEUE_WAIT_S
        while time.monotonic() < deadline:
            time.sleep(_POLL_S)
            if _taken(state, number) == "cancel":
                _write(state / f"{number}.json", json.dumps({**record, "state": "CANCELLED"}))
                return 0


def _start(state: Path, number: int, options: dict[str, str], restarts: int) -> str:
    """Run the job once; how it ended."""

    def note(name: str, count: int = restarts) -> None:
        content = json.dumps({"state": name, "restarts": count})
        _write(state / f"{number}.json", content)

    variables = {"JOB_ID": str(number), "JOB_NUM_NODES": options.get("nodes", "1")}
    if restarts:
        variables["RESTART_COUNT"] = str(restarts)
    environment = {f"SLURM_{name}": value for name, value in variables.items()}
    output = options.get("output", os.devnull).strip("'").replace("%j", str(number))
    note("RUNNING")
    with open(output, "a") as log:
        script = subprocess.Popen(
            ["bash", state / f"{number}.sh"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **environment, "SLURMD_NODENAME": socket.gethostname()},
        )
    second = float(os.environ[_MINUTE_S]) / 60
    limit = time.monotonic() + 60 * second * int(options.get("time", "1440"))
    warning = re.fullmatch(r"B:USR1@(\d+)", options.get("signal", ""))
    warned_at = limit - second * int(warning[1]) if warning else None
    requeue_at = float("inf")
    while script.poll() is None:
        time.sleep(_POLL_S)
        now, request = time.monotonic(), _taken(state, number)
        if request.startswith("limit"):
            warned_at, limit = now, now + float(request.split()[1])
        if warned_at is not None and now >= warned_at:
            warned_at = None
            script.send_signal(signal.SIGUSR1)
        if request.startswith("preempt"):
            requeue_at = now + float(request.split()[1])
            _signal(number, signal.SIGTERM, steps_only=True)
        if request == "lose":
            _signal(number, signal.SIGKILL)
            return "REQUEUED" if "requeue" in options else "NODE_FAIL"
        if request == "requeue" or now > requeue_at:
            note("COMPLETING", restarts + 1)
            _end(script, number)
            return "REQUEUED" if "requeue" in options else "PREEMPTED"
        if request == "cancel" or now > limit:
            end = "CANCELLED" if request == "cancel" else "TIMEOUT"
            note("COMPLETING")
            _end(script, number)
            return end
    _signal(number, signal.SIGKILL)
    # A requeue that the script asked for as it ended.
    if _taken(state, number) == "requeue":
        return "REQUEUED"
    return "FAILED" if script.returncode else "COMPLETED"


def _end(script: "subprocess.Popen[bytes]", number: int) -> None:
    _signal(number, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        script.wait(_KILL_WAIT_S)
    _signal(number, signal.SIGKILL)
    script.wait()


def _signal(number: int, signum: int, steps_only: bool = False) -> None:
    """Send a signal to each process of the job, or of what its srun has started."""
    marks = [f"{_FOLDER}={os.environ[_FOLDER]}", f"SLURM_JOB_ID={number}"]
    if steps_only:
        marks.append("SLURM_STEP_ID=0")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            if set(marks) <= set(variables):
                os.kill(int(entry.name), signum)
        except OSError:
            continue


def srun(state: Path, words: list[str]) -> int:
    options = {}
    while words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        options[name] = value
    tasks = []
    job_id = os.environ["SLURM_JOB_ID"]
    for number in range(int(options["ntasks"])):
        where = {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number), "SLURM_STEP_ID": "0"}
        output = options["output"].replace("%j", job_id).replace("%t", str(number))
        with open(output, "a") as log:
            tasks.append(
                subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **where})
            )

    def end(*_: object) -> None:
        for task in tasks:
            task.kill()

    signal.signal(signal.SIGTERM, end)
    ended_at = float("inf")
    while any(task.poll() is None for task in tasks):
        time.sleep(_POLL_S)
        if any(task.returncode for task in tasks) and ended_at == float("inf"):
            ended_at = time.monotonic() + _KILL_WAIT_S
            for task in tasks:
                task.terminate()
        if time.monotonic() > ended_at:
            for task in tasks:
                task.kill()
    return max(abs(task.wait()) for task in tasks)


def squeue(state: Path, words: list[str]) -> int:
    number = next(word.partition("=")[2] for word in words if word.startswith("--jobs="))
    name = str(record_of(state, int(number))["state"])
    if name not in ("PENDING", "RUNNING", "COMPLETING"):
        print(_INVALID, file=sys.stderr)
        return 1
    print(name)
    return 0


def sacct(state: Path, words: list[str]) -> int:
    number = next(word.partition("=")[2] for word in words if word.startswith("--jobs="))
    print(f"  {record_of(state, int(number))['state']} ")
    return 0


def scontrol(state: Path, words: list[str]) -> int:
    number = int(words[-1])
    if "requeue" in words:
        if "requeue" not in options_of(state, number):
            print("Requested operation is presently disabled for job", file=sys.stderr)
            return 1
        ask(state, number, "requeue")
        return 0
    record = record_of(state, number)
    print(f"JobId={number} JobState={record['state']} Requeue=1 Restarts={record['restarts']}")
    return 0


def scancel(state: Path, words: list[str]) -> int:
    ask(state, int(words[0]), "cancel")
    return 0


def _taken(state: Path, number: int) -> str:
    """What was asked for; it is forgotten."""
    file = state / f"{number}.request"
    try:
        request = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    file.unlink()
    return request


def _write(file: Path, content: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(content, encoding="utf-8")
    draft.replace(file)


if __name__ == "__main__":
    main()
