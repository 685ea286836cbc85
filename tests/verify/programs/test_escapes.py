"""A program reaches no file, network, process or secret, and leaves nothing behind."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoning_lab.config.folder import CONF
from reasoning_lab.types import Verdict
from reasoning_lab.verify.programs.pool import ProgramPool
from reasoning_lab.verify.sandbox import is_available
from tests.support.programs import code_problem

pytestmark = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")

# `trace` is a folder, `secret` a file in it, `conf` the lab's configs, `pid` the lab's process,
# `tester` that of the tests, `port` one that the lab listens on, `python` an interpreter.
ATTEMPTS = {
    "write a file": "open(trace + '/new', 'w')",
    "append to a file": "open(secret, 'a')",
    "read a file": "open(secret).read()",
    "read the password file": "open('/etc/passwd').read()",
    "list a folder": "os.listdir(trace)",
    "list the working folder": "os.listdir('.')",
    "read the data of the lab": "open(conf + '/config.yaml').read()",
    "remove a file": "os.unlink(secret)",
    "rename a file": "os.rename(secret, trace + '/renamed')",
    "make a folder": "os.mkdir(trace + '/folder')",
    "make a symbolic link": "os.symlink('/etc/passwd', trace + '/link')",
    "make a hard link": "os.link(secret, trace + '/hard')",
    "make a pipe with a name": "os.mkfifo(trace + '/fifo')",
    "change a mode": "os.chmod(secret, 0o777)",
    "change times": "os.utime(secret)",
    "change an attribute": "os.setxattr(secret, 'user.a', b'1')",
    "shorten a file": "os.truncate(secret, 0)",
    "write to shared memory": "open('/dev/shm/zqxmark', 'w')",
    "make a file in memory": "os.memfd_create('a')",
    "share memory": "refused(libc.shmget(0, 4096, 0o1777))",
    "write to a package": "open(os.__file__, 'a')",
    "read its own memory": "open('/proc/self/mem', 'rb')",
    "read its environment": "open('/proc/self/environ', 'rb')",
    "read the memory of the tests": "open(f'/proc/{tester}/mem', 'rb')",
    "read the memory of the lab": "open(f'/proc/{pid}/mem', 'rb')",
    "read the memory of the lab by a call": "refused(libc.process_vm_readv(pid, 0, 0, 0, 0, 0))",
    "trace the tests": "refused(libc.ptrace(16, tester, 0, 0))",
    "open the lab's files": "refused(libc.syscall(434, pid, 0))",
    "open a file by its handle": "refused(libc.open_by_handle_at(0, 0, 0))",
    "connect": "socket.create_connection(('127.0.0.1', port))",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "use a local socket": "socket.socket(socket.AF_UNIX)",
    "make a pair of sockets": "socket.socketpair()",
    "fetch a page": "urllib.request.urlopen(f'http://127.0.0.1:{port}/')",
    "fork": "os.fork()",
    "fork by a call": "refused(libc.vfork())",
    "fork by another call": "refused(libc.syscall(435, 0, 0))",
    "start a program": "os.execv(python, ['python', '-c', ''])",
    "start a process": "os.posix_spawn(python, ['python', '-c', ''], {})",
    "start a subprocess": "subprocess.run([python, '-c', ''])",
    "start a shell": "subprocess.run(f'touch {trace}/shell', shell=True)",
    "start a thread": "threading.Thread(target=print).start()",
    "signal the lab": "os.kill(pid, 0)",
    "signal the tests": "os.kill(tester, 0)",
    "signal itself": "os.kill(os.getpid(), 0)",
    "signal everyone": "os.kill(-1, 0)",
    "be signalled for the lab": "fcntl.fcntl(0, fcntl.F_SETOWN, pid)",
    "choose a signal": "fcntl.fcntl(0, fcntl.F_SETSIG, 9)",
    "control a device": "fcntl.ioctl(0, 0x5401, bytes(64))",
    "change its limits": "refused(libc.setrlimit(0, bytes(16)))",
    "change the limits of the tests": "resource.prlimit(tester, resource.RLIMIT_CPU, (9, 9))",
    "change the lab's priority": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "change the lab's cores": "os.sched_setaffinity(pid, {0})",
    "become another user": "os.setuid(65534)",
    "outlive its parent": "refused(libc.prctl(1, 0, 0, 0, 0))",
    "leave its session": "os.setsid()",
    "leave its group": "os.setpgid(0, 0)",
    "leave its namespace": "refused(libc.unshare(0x10000000))",
    "mount": "refused(libc.mount(b'none', b'/', None, 32, None))",
    "change the root": "os.chroot('/')",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "change the name of the machine": "socket.sethostname('zqxmark')",
    "change its filter": "refused(libc.prctl(22, 2, 0, 0, 0))",
    "see a secret of the environment": "os.environ['SECRET_TOKEN']",
}
# What a refusal looks like where Python makes something else of it.
OTHER_ERRORS = {
    "fetch a page": "urllib.error.URLError",
    "start a thread": "RuntimeError",
    "see a secret of the environment": "KeyError",
}
PROGRAM = """
import ctypes, errno, fcntl, os, resource, socket, subprocess, threading, time, urllib.request
libc = ctypes.CDLL(None, use_errno=True)
tester = os.getppid()
{places}

def refused(result):
    if result < 0 and ctypes.get_errno() == errno.EPERM:
        raise PermissionError

def attempt():
    try:
        {attempt}
    except (PermissionError, {other}):
        return "refused"
    return "reached"
"""


@pytest.fixture
def process_group() -> Iterator[int]:
    """A process group of this process and those that it starts.

    Elsewhere the workers of a suite are in one group, and one's processes would count as another's.
    """
    shared = os.getpgrp()
    if shared == os.getpid():
        yield shared
        return
    os.setpgid(0, 0)
    yield os.getpid()
    os.setpgid(0, shared)


def running_processes(group: int) -> set[int]:
    """Ids of the running processes of a group, to which those of programs belong from the start."""
    processes = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                processes.add(int(folder.name))
    return processes


def test_no_attempt_to_escape_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_group: int
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    trace = tmp_path / "trace"
    trace.mkdir()
    secret = trace / "secret"
    secret.write_text("hunter2")
    before = running_processes(process_group)
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = {
            "trace": str(trace),
            "secret": str(secret),
            "conf": str(CONF),
            "pid": os.getpid(),
            "port": server.getsockname()[1],
            "python": sys.executable,
        }
        assigned = "\n".join(f"{name} = {value!r}" for name, value in places.items())
        programs = [
            PROGRAM.format(places=assigned, attempt=code, other=OTHER_ERRORS.get(name, ""))
            for name, code in ATTEMPTS.items()
        ]
        problem = code_problem(
            'def attempt():\n    return "refused"', ["assert attempt() == 'refused'"]
        )
        pool = ProgramPool(workers=2, timeout_s=60, memory_mb=256)
        try:
            results = pool.results([problem] * len(programs), programs)
        finally:
            pool.close()
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    verdicts = {name: result.verdict for name, result in zip(ATTEMPTS, results, strict=True)}
    assert verdicts == dict.fromkeys(ATTEMPTS, Verdict.CORRECT)
    assert [path.name for path in trace.iterdir()] == ["secret"]
    assert secret.read_text() == "hunter2"
    assert not Path("/dev/shm/zqxmark").exists()
    assert running_processes(process_group) <= before


def test_nothing_of_a_program_goes_on_after_its_time(process_group: int) -> None:
    """The program tries to shed every tie to the processes that end it."""
    stay = """
import ctypes, os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
libc = ctypes.CDLL(None)
libc.prctl(1, 0, 0, 0, 0)
libc.setsid()
libc.setuid(65534)
libc.setresuid(1000, 1000, 1000)
while True:
    pass
"""
    before = running_processes(process_group)
    pool = ProgramPool(workers=1, timeout_s=1, memory_mb=256)
    problem = code_problem("x = 1", ["assert x() == 1"])
    try:
        [result] = pool.results([problem], [stay])
    finally:
        pool.close()
    assert result.verdict is Verdict.TIMEOUT
    deadline = time.monotonic() + 5
    while (rest := running_processes(process_group) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in rest:
        os.kill(number, signal.SIGKILL)
    assert rest == set()
