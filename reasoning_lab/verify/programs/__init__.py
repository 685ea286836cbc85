"""Answers that are programs: run in one process, tested from another, judged outside of both.

The way of an answer: `pool.py` (in the verifier's process) gives a server (`server.py`) the program
and the tests. The server forks a process of the tests (`test_process.py`), which forks a process of
the program (`program_process.py`). These two exchange values (`values.py`), and nothing else.
"""
