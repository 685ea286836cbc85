"""Answers to problems of reasoning-gym (https://github.com/open-thought/reasoning-gym).

reasoning-gym scores text, and some of its scorers evaluate that text as Python. The lab calls only
scorers that were reviewed and only compare. It replaces the others by scorers of its own.
"""
