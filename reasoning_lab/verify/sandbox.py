"""A sandbox for the processes that handle answers.

The Linux kernel enforces it, without a helper program and without privileges:

- Landlock (https://docs.kernel.org/userspace-api/landlock.html): nothing can be written, and only
  the folders of Python's path and the system's libraries can be read;
- seccomp (https://docs.kernel.org/userspace-api/seccomp_filter.html): no socket, no other program,
  no signal, no shared memory, no change of a file's mode, owner or times.

A worker of the verifier enters the sandbox once. The process of one answer
(`user_checker_server`) inherits it and may not fork either. Other systems have no sandbox.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from reasoning_lab.config.targets import TRUSTED_VARIABLE

_NO_NEW_PRIVS = 38
_PARENT_DEATH_SIGNAL = 1
_CHILD_SUBREAPER = 36
# A user's checker may need these variables; none of them is a secret.
ALLOWED_VARIABLES = (TRUSTED_VARIABLE, "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS")

# Landlock's system calls have the same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
# Rights over files that each version of Landlock added, as the number of bits that it knows.
_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_LATEST_FILE_BITS = 16
_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls that no worker needs: x86_64 number, aarch64 number.
_FORBIDDEN = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendto": (44, 206),
    "bind": (49, 200), "listen": (50, 201), "socketpair": (53, 199), "accept4": (288, 242),
    "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
    "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_setup": (206, 0), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "open_by_handle_at": (304, 265), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469), "shmctl": (31, 195), "semctl": (66, 191), "semop": (65, 193),
    "semtimedop": (220, 192), "msgctl": (71, 187), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "process_mrelease": (448, 448),
    "kcmp": (312, 272),
}  # fmt: skip
# The process of one answer may not use these either: it starts no process and changes no limit.
_FORBIDDEN_IN_CHILD = {
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    "prctl": (157, 167), "prlimit64": (302, 261), "setrlimit": (160, 164), "seccomp": (317, 277),
    "ioctl": (16, 29), "setsid": (112, 157), "setpgid": (109, 154),
}  # fmt: skip
# Commands of fcntl that choose who gets which signal when a pipe is ready.
_FCNTL = (72, 25)
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_CAPGET, _CAPSET = (125, 90), (126, 91)
_CAPABILITY_VERSION = 0x20080522
_READ_ANY_FILE = 1 << 1
_PRLIMIT = (302, 261)
_SECCOMP = (317, 277)
_SET_FILTER, _ALL_THREADS = 1, 1
_X32 = 0x40000000
_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


class SandboxError(OSError):
    """The kernel offers no Landlock or no seccomp, or refuses to apply them."""


# Holds an item once this process is in the sandbox.
_sandboxed: list[bool] = []


@cache
def is_available() -> bool:
    """Return whether this machine's kernel can sandbox a process."""
    if sys.platform != "linux" or platform.machine() not in _AUDIT_ARCHITECTURES:
        return False
    return _landlock_version() > 0


def enter_sandbox(readable: Sequence[Path]) -> None:
    """Give up writing, network, programs, signals and the environment of this process, for good.

    The process may still start threads and children, which inherit the sandbox. It may read
    `readable`, Python's path and the system's libraries.

    Raises:
        SandboxError: The kernel refuses.
    """
    if not is_available():
        raise SandboxError("this kernel has no Landlock")
    _clear_environment()
    _libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    _restrict_files([*_python_folders(), *readable])
    _restrict_system_calls(children_allowed=True)
    _sandboxed.append(True)


def is_sandboxed() -> bool:
    """Return whether this process is in the sandbox."""
    return bool(_sandboxed)


def forbid_child_processes() -> None:
    """Give up starting threads and children and changing limits, in a sandboxed process.

    Raises:
        SandboxError: The kernel refuses.
    """
    _restrict_system_calls(children_allowed=False)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, or exit if it has ended already."""
    if sys.platform == "linux":
        _libc().prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of this process's descendants whose own parent ends."""
    if sys.platform == "linux":
        _libc().prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)


def _drop_capabilities() -> None:
    """Give up what root may do beyond reading files, which Landlock limits.

    Changing its user would also free a process from ending with its parent.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    column = list(_AUDIT_ARCHITECTURES).index(platform.machine())
    _system_call(_CAPGET[column], header, sets)
    effective, permitted, *_ = struct.unpack("=6I", sets.raw)
    remaining = _READ_ANY_FILE & permitted
    content = struct.pack("=6I", effective & remaining, remaining, 0, 0, 0, 0)
    _system_call(_CAPSET[column], header, content)


def _clear_environment() -> None:
    """Clear the environment, and the memory in which the kernel put it at the start."""
    preserved = {name: os.environ[name] for name in ALLOWED_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(preserved)
    start, end = (int(field) for field in Path("/proc/self/stat").read_text().split()[-3:-1])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def _python_folders() -> list[Path]:
    package = Path(__file__).parents[1]
    folders = [package, Path(sys.prefix), Path(sys.base_prefix)]
    return [*folders, *(Path(entry or ".") for entry in sys.path), *map(Path, _SYSTEM_FOLDERS)]


def _restrict_files(readable: Sequence[Path]) -> None:
    version = _landlock_version()
    handled = (1 << _FILE_BITS.get(version, _LATEST_FILE_BITS)) - 1
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _system_call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in dict.fromkeys(readable):
            rights = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
            _allow(ruleset, path, rights)
        for device in _DEVICES:
            _allow(ruleset, Path(device), (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled)
        _system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        _system_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _restrict_system_calls(children_allowed: bool) -> None:
    program = _filter_program(children_allowed)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    column = list(_AUDIT_ARCHITECTURES).index(platform.machine())
    _system_call(_SECCOMP[column], _SET_FILTER, _ALL_THREADS, header)


@cache
def _filter_program(children_allowed: bool) -> bytes:
    """A BPF program that refuses system calls, prlimit of other processes and signals by fcntl."""
    machine = platform.machine()
    column = list(_AUDIT_ARCHITECTURES).index(machine)
    table = _FORBIDDEN if children_allowed else _FORBIDDEN_IN_CHILD
    numbers = [row[column] for row in table.values()]
    # Offsets in seccomp_data: 0 the number, 4 the architecture, 16 and 24 the first arguments.
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD_WORD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD_WORD, 0, 0, 0),
    ]
    checks = [(_JUMP_EQUAL, number) for number in numbers if number is not None]
    if machine == "x86_64":
        checks.insert(0, (_JUMP_AT_LEAST, _X32))
    tail = [
        (_JUMP_EQUAL, 0, 2, _PRLIMIT[column]),
        (_LOAD_WORD, 0, 0, 16),
        (_JUMP_EQUAL, 5, 6, 0),
        (_JUMP_EQUAL, 0, 4, _FCNTL[column]),
        (_LOAD_WORD, 0, 0, 24),
        (_JUMP_EQUAL, 3, 0, _F_SETOWN),
        (_JUMP_EQUAL, 2, 0, _F_SETSIG),
        (_JUMP_EQUAL, 1, 0, _F_SETOWN_EX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    # Each check jumps to the last step, which refuses.
    steps += [
        (kind, len(checks) - position + len(tail) - 2, 0, value)
        for position, (kind, value) in enumerate(checks)
    ]
    steps += tail
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _landlock_version() -> int:
    return int(_libc().syscall(_CREATE_RULESET, None, 0, _ABI_VERSION))


def _system_call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise SandboxError(ctypes.get_errno(), f"system call {number} is refused")
    return result
