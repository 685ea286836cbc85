"""Answers to problems of reasoning-gym (https://github.com/open-thought/reasoning-gym).

reasoning-gym scores text, and some of its scorers evaluate that text as Python. The lab calls only
scorers that were reviewed and only compare. It replaces the others by scorers of its own.

- `families`: how each family is scored, and which are refused;
- `answer_patterns`: what an answer of the shipped families may look like;
- `scorers`: the lab's scorers for the families whose scorer is replaced;
- `expressions`: a parser of arithmetic that evaluates no text;
- `polynomials`, `calculus`: the values of algebraic expressions.
"""
