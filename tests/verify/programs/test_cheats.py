"""A program gets the verdict that its values earn, whatever else it does."""

import os
import signal
from collections.abc import Iterator

import pytest

from reasoning_lab.types import Problem, Verdict
from reasoning_lab.verify.programs.pool import ProgramPool
from reasoning_lab.verify.sandbox import is_available
from tests.support.processes import program_servers
from tests.support.programs import code_problem

pytestmark = pytest.mark.skipif(not is_available(), reason="this kernel has no Landlock")

CORRECT, WRONG = Verdict.CORRECT, Verdict.WRONG
UNPARSEABLE, TIMEOUT = Verdict.UNPARSEABLE, Verdict.TIMEOUT

# Tests that rely on builtins, on a module and on truth, so that each can be attacked.
CUBE = code_problem(
    "import math\ndef cube(x):\n    return x ** 3\n",
    [
        "assert cube(2) == 8",
        "assert math.isclose(cube(0.5), 0.125)",
        "assert all(map(lambda x: cube(x) == x * x * x, range(1, 5)))",
        "assert sorted({cube(2), cube(1)}) == [1, 8]",
        "assert not cube(0)",
        "numbers = [3]\nassert [cube(n) for n in numbers] == [27]",
    ],
)
SORT = code_problem(
    "def in_order(items):\n    return sorted(items)\n",
    ["items = [3, 1, 2]\nassert in_order(items) == sorted(items)"],
)
IS_PRIME = code_problem(
    "def is_prime(n):\n    return n in (2, 3, 5, 7)\n", ["assert is_prime(2)", "assert is_prime(7)"]
)
# A wrong function for the attacks that need one.
ANY = "def cube(x):\n    return {value}\n"
WRITE = """
import os, struct, json
def message(content):
    body = json.dumps(content).encode()
    return struct.pack("=I", len(body)) + body
def write_everywhere(content):
    for descriptor in range(64):
        try:
            os.write(descriptor, content)
        except OSError:
            pass
"""
FRAMES = """
import sys, gc, re
def stolen(x):
    frame = sys._getframe()
    texts = []
    while frame is not None:
        texts += [repr(frame.f_locals), repr(list(frame.f_globals))]
        frame = frame.f_back
    texts += [repr(item) for item in gc.get_objects() if isinstance(item, (str, dict, list))]
    known = re.findall(r"cube\\((\\d+)\\) == (\\d+)", " ".join(texts))
    return int(dict(known)[str(x)])
"""

CHEATS: dict[str, tuple[str, Verdict]] = {
    "ends with success": ("import sys; sys.exit(0)", WRONG),
    "ends the process": ("import os; os._exit(0)", WRONG),
    "raises SystemExit in the call": ("def cube(x):\n    raise SystemExit(0)", WRONG),
    "raises KeyboardInterrupt": ("def cube(x):\n    raise KeyboardInterrupt", WRONG),
    "aborts": ("import os\ndef cube(x):\n    os.abort()", WRONG),
    "crashes": ("import ctypes\ndef cube(x):\n    ctypes.string_at(0)", WRONG),
    "prints that it passed": ("print('passed')\ndef cube(x):\n    print('1 passed')", WRONG),
    "swallows every error": ("try:\n    assert False\nexcept BaseException:\n    pass", WRONG),
    "raises AssertionError": ("def cube(x):\n    raise AssertionError", WRONG),
    "raises StopIteration": ("def cube(x):\n    raise StopIteration", WRONG),
    "is equal to everything": (
        "class Any:\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 8\n"
        + ANY.format(value="Any()"),
        WRONG,
    ),
    "is an int that is equal to everything": (
        "class Any(int):\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 8\n"
        + ANY.format(value="Any(5)"),
        WRONG,
    ),
    "is a float that is close to everything": (
        "class Any(float):\n    __eq__ = __lt__ = __le__ = lambda s, o: True\n"
        + ANY.format(value="Any(5)"),
        WRONG,
    ),
    "says that its class is int": (
        "class Any:\n    __class__ = int\n    __index__ = lambda s: 8\n"
        + ANY.format(value="Any()"),
        WRONG,
    ),
    "is a dict of lies": (
        "class Any(dict):\n    __eq__ = lambda s, o: True\n" + ANY.format(value="Any()"),
        WRONG,
    ),
    "returns a function that lies": (ANY.format(value="(lambda *a: True)"), WRONG),
    "returns itself": (ANY.format(value="cube"), WRONG),
    "returns nan": (ANY.format(value="float('nan')"), WRONG),
    "replaces builtins": (
        "import builtins\nbuiltins.sorted = builtins.all = lambda *a, **k: True\n"
        "builtins.AssertionError = type('E', (Exception,), {})\n" + ANY.format(value=1),
        WRONG,
    ),
    "defines the names of builtins": (
        "sorted = all = map = range = lambda *a: [1, 8]\n" + ANY.format(value=1),
        WRONG,
    ),
    "defines math": (
        "class math:\n    isclose = staticmethod(lambda *a: True)\n" + ANY.format(value=1),
        WRONG,
    ),
    "replaces modules": (
        "import sys\nsys.modules['math'] = sys.modules['json'] = None\n" + ANY.format(value=1),
        WRONG,
    ),
    "replaces json": (
        "import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\n" + ANY.format(value=1),
        WRONG,
    ),
    "replaces the functions that reply": (
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.startswith('reasoning_lab'):\n"
        "        for key in ('to_json', 'run_tests', 'record', 'check'):\n"
        "            setattr(module, key, lambda *a, **k: True)\n" + ANY.format(value=1),
        WRONG,
    ),
    "writes a result and ends": (
        WRITE + "write_everywhere(b'T' + struct.pack('=I', 6) + b'1' * 6)\nos._exit(0)",
        WRONG,
    ),
    "writes that it is no Python": (WRITE + "write_everywhere(message(False) * 3)", WRONG),
    "writes replies before the calls": (
        WRITE + "write_everywhere(message(True) + message({'value': 9}) * 20)",
        WRONG,
    ),
    "writes a reference": (
        WRITE + "write_everywhere(message(True) + message({'value': {'object': 0}}) * 20)",
        WRONG,
    ),
    "floods its replies": (
        WRITE + "write_everywhere(message(True))\n"
        "while True:\n    write_everywhere(message({'value': 9}) * 1000)",
        WRONG,
    ),
    "writes changes of arguments that are none": (
        WRITE
        + "write_everywhere(message(True) + message({'value': None, 'changed': {'-9': []}}) * 20)",
        WRONG,
    ),
    "writes values that are none": (
        WRITE + "write_everywhere(message(True) + message({'value': {'set': [[]]}}) * 20)",
        WRONG,
    ),
    "writes an error that ends the tests": (
        WRITE + "write_everywhere(message(True) + message({'error': ['SystemExit', '0']}) * 20)",
        WRONG,
    ),
    "writes an error that is code": (
        WRITE + "write_everywhere(message(True) + message({'error': ['exec', 'x = 1']}) * 20)",
        WRONG,
    ),
    "writes a huge length": (WRITE + "write_everywhere(b'\\xff' * 64)", WRONG),
    "writes deep JSON": (
        WRITE + "write_everywhere(struct.pack('=I', 4000) + b'[' * 4000)",
        WRONG,
    ),
    "closes its pipes": ("import os\nos.closerange(0, 64)\n" + ANY.format(value=1), WRONG),
    "exchanges its pipes": (
        "import os\nfor d in range(3, 12):\n    try: os.dup2(1, d)\n    except OSError: pass\n"
        + ANY.format(value=1),
        WRONG,
    ),
    "reads the tests in its frames and objects": (
        FRAMES + "def cube(x):\n    return stolen(x)",
        WRONG,
    ),
    "traces the tests": (
        "import sys\ndef trace(frame, event, arg):\n    frame.f_locals.update(x=1)\n"
        "    return trace\nsys.settrace(trace)\nsys.setprofile(trace)\n" + ANY.format(value=1),
        WRONG,
    ),
    "registers what to do at its end": (
        "import atexit, os\natexit.register(os.write, 1, b'1')\n"
        "class Last:\n    def __del__(self):\n        os._exit(0)\nlast = Last()\n"
        + ANY.format(value=1),
        WRONG,
    ),
    "has deep recursion": (
        "import sys\nsys.setrecursionlimit(10**4)\ndef cube(x):\n    return cube(x) + 1",
        WRONG,
    ),
    "returns a list of itself": (
        "items = []\nitems.append(items)\n" + ANY.format(value="items"),
        WRONG,
    ),
    "takes all memory": (ANY.format(value="[0] * 10**10"), WRONG),
    "takes all memory by a text": (ANY.format(value="'a' * 10**11"), WRONG),
    "takes all memory while it is read": (
        "x = '" + "9" * 10 + "' * 10**11\n" + ANY.format(value=1),
        WRONG,
    ),
    "returns much": (ANY.format(value="'a' * 10**7"), WRONG),
    "returns a huge number": (ANY.format(value="1 << 10**7"), WRONG),
    "returns a huge range": (ANY.format(value="range(10**30)"), WRONG),
    "returns deep lists": (
        "deep = []\nfor _ in range(900):\n    deep = [deep]\n" + ANY.format(value="deep"),
        WRONG,
    ),
    "returns numbers of one hash": (
        ANY.format(value="{n * (2**61 - 1) for n in range(1000)}"),
        WRONG,
    ),
    "returns an endless iterator": (
        "import itertools\n" + ANY.format(value="itertools.count()"),
        WRONG,
    ),
    "returns an endless iterator of lies": (ANY.format(value="iter(lambda: 8, 0)"), WRONG),
    "writes much": (
        "import os\nfor _ in range(200):\n    os.write(1, b'a' * 10**6)\n" + ANY.format(value=1),
        WRONG,
    ),
    "starts threads": (
        "import threading\nthreading.Thread(target=print).start()\n" + ANY.format(value=1),
        WRONG,
    ),
    "is no Python": ("def cube(x) return x ** 3", UNPARSEABLE),
    "holds a NUL": ("def cube(x):\n    return 1\0", UNPARSEABLE),
    "nests beyond the parser": ("(" * 20_000 + ")" * 20_000, UNPARSEABLE),
    "has no function": ("x = 8", WRONG),
    "names a value": ("cube = 8", WRONG),
}
LATE = {
    "sleeps": "import time\ntime.sleep(1000)",
    "sleeps in a call": "import time\ndef cube(x):\n    time.sleep(1000)",
    "does not end": "while True: pass",
    "ignores signals": (
        "import signal, time\nfor s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "time.sleep(1000)"
    ),
    "waits for its tests": WRITE + "os.read(0, 1)\nfor d in range(3, 64):\n"
    "    try:\n        while os.read(d, 100): pass\n    except OSError: pass\nimport time\n"
    "time.sleep(1000)",
    "writes a result and waits": WRITE
    + "write_everywhere(b'T' + struct.pack('=I', 6) + b'1' * 6)\n"
    + ANY.format(value=1),
    "writes half a message": WRITE
    + "write_everywhere(message(True) + b'\\xff\\x00')\nimport time\ntime.sleep(1000)",
}
# Programs that are right, whatever they do besides.
RIGHT = {
    "plain": "def cube(x):\n    return x ** 3",
    "prints that it failed": "def cube(x):\n    print('failed')\n    return x ** 3",
    "replaces builtins": "import builtins\nbuiltins.all = print\ndef cube(x):\n    return x ** 3",
    "returns a subclass": "class Number(float):\n    pass\ndef cube(x):\n    return Number(x ** 3)",
    "is a lambda": "cube = lambda x: x ** 3",
    "is an object": "class Cube:\n    def __call__(self, x):\n        return x ** 3\ncube = Cube()",
    "reads its input": "import sys\nsys.stdin.read()\ndef cube(x):\n    return x ** 3",
    "has a main part": "def cube(x):\n    return x ** 3\nif __name__ == '__main__':\n    exit(1)",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ProgramPool]:
    shared = ProgramPool(workers=2, timeout_s=60, memory_mb=256)
    yield shared
    shared.close()


def verdicts(pool: ProgramPool, problem: Problem, programs: list[str]) -> list[Verdict]:
    return [result.verdict for result in pool.results([problem] * len(programs), programs)]


def test_no_cheat_changes_a_verdict(pool: ProgramPool) -> None:
    """Between any two cheats there is a right and a wrong program."""
    programs = [program for program, _ in CHEATS.values()]
    interleaved = [text for cheat in programs for text in (cheat, CUBE.gold, ANY.format(value=8))]
    results = verdicts(pool, CUBE, interleaved)
    expected = {name: verdict for name, (_, verdict) in CHEATS.items()}
    assert dict(zip(CHEATS, results[::3], strict=True)) == expected
    assert set(results[1::3]) == {CORRECT}
    assert set(results[2::3]) == {WRONG}


def test_a_right_program_is_right_whatever_it_does_besides(pool: ProgramPool) -> None:
    assert dict(zip(RIGHT, verdicts(pool, CUBE, [*RIGHT.values()]), strict=True)) == dict.fromkeys(
        RIGHT, CORRECT
    )


def test_a_program_that_does_not_end_times_out_alone() -> None:
    impatient = ProgramPool(workers=2, timeout_s=1, memory_mb=256)
    try:
        late = verdicts(impatient, CUBE, [*LATE.values()])
    finally:
        impatient.close()
    assert dict(zip(LATE, late, strict=True)) == dict.fromkeys(LATE, TIMEOUT)


def test_a_change_of_an_argument_does_not_change_what_is_expected(pool: ProgramPool) -> None:
    programs = [
        SORT.gold,
        "def in_order(items):\n    items.clear()\n    return items",
        "def in_order(items):\n    items.clear()",
    ]
    assert verdicts(pool, SORT, programs) == [CORRECT, WRONG, WRONG]


def test_an_object_of_the_program_has_no_truth(pool: ProgramPool) -> None:
    programs = [IS_PRIME.gold, "def is_prime(n):\n    return object()"]
    assert verdicts(pool, IS_PRIME, programs) == [CORRECT, WRONG]


# Tests that write everywhere, once and for ever.
FORGED = WRITE + "write_everywhere(b'T\\1\\0\\0\\0' + b'1' * 99)\nassert cube(1) == 2"
FLOOD = WRITE + "while True:\n    write_everywhere(b'1' * 4096)\nassert cube(1) == 1"
ENDLESS = "while True:\n    pass\nassert cube(1) == 1"


def test_hostile_tests_decide_nothing_but_their_own_verdicts() -> None:
    """They may write what they want where their results go; the next program is not theirs."""
    hostile = [code_problem(CUBE.gold, [test]) for test in (FORGED, FLOOD, ENDLESS)]
    wrong = ANY.format(value=8)
    single = ProgramPool(workers=1, timeout_s=1, memory_mb=256)
    try:
        for problem in hostile:
            [verdict] = verdicts(single, problem, [wrong])
            assert verdict in (WRONG, TIMEOUT)
            assert verdicts(single, CUBE, [wrong]) == [WRONG]
    finally:
        single.close()


def test_a_server_that_somebody_ends_says_nothing_about_its_program(pool: ProgramPool) -> None:
    assert verdicts(pool, CUBE, [CUBE.gold] * 2) == [CORRECT] * 2
    servers = program_servers()
    assert servers
    for server in servers:
        os.kill(server, signal.SIGKILL)
    assert verdicts(pool, CUBE, [CUBE.gold, ANY.format(value=8)]) == [CORRECT, WRONG]
