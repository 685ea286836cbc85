"""A parser of arithmetic that evaluates no text as code.

A grammar lists the names, functions and operators that a text may use. The parser is recursive
descent with Python's precedence. It computes with values that the grammar supplies: exact
fractions, the polynomials of `polynomials`, or sympy's objects. Length, digits and nesting are
bounded.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_MAX_CHARS = 2_000
_MAX_TOKENS = 1_000
_MAX_DEPTH = 30
_SPACE = " \t\r\n"
_TOKEN = re.compile(
    rf"[{_SPACE}]*(?:(?P<number>[0-9]{{1,40}}(?:\.[0-9]{{0,40}})?|\.[0-9]{{1,40}})(?![0-9A-Za-z_.])"
    r"|(?P<name>[A-Za-z](?:[A-Za-z0-9]|_(?!_)){0,15})(?![A-Za-z0-9_])"
    r"|(?P<operator>\*[ \t]{0,9}\*|[-+*/()]))"
)


class NotInGrammarError(ValueError):
    """The text does not fit the grammar, or a value in it exceeds the bounds."""


@dataclass(frozen=True)
class Grammar:
    """The parts that an expression may have, and their values.

    Args:
        number: The value of an exact number.
        names: The values of the names that may occur.
        functions: The functions of one argument that may be called.
        power: The value of `base**exponent`; None where `**` is not allowed.
        decimals: Whether numbers may have a decimal point.
    """

    number: Callable[[Fraction], Any]
    names: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    power: Callable[[Any, Any], Any] | None = None
    decimals: bool = False

    def parse(self, text: str) -> Any:
        """Return the value of `text`.

        Raises:
            NotInGrammarError: The text does not fit, or it divides by zero.
        """
        if len(text) > _MAX_CHARS:
            raise NotInGrammarError("too long")
        tokens = list(_tokens(text))
        if len(tokens) > _MAX_TOKENS:
            raise NotInGrammarError("too many tokens")
        parser = _Parser(self, deque(tokens))
        try:
            value = parser.parse_sum(0)
        except ZeroDivisionError as error:
            raise NotInGrammarError("division by zero") from error
        if parser.tokens:
            raise NotInGrammarError("text follows the expression")
        return value


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of each token."""
    text = text.rstrip(_SPACE)
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise NotInGrammarError("unknown character")
        # reasoning-gym also accepts "* *" as a power.
        yield match.lastgroup, "".join(match[0].split())
        position = match.end()


class _Parser:
    def __init__(self, grammar: Grammar, tokens: deque[tuple[str, str]]) -> None:
        self._grammar = grammar
        self.tokens = tokens

    def _next_is(self, *operators: str) -> bool:
        return bool(self.tokens) and self.tokens[0][1] in operators

    def _next_token(self) -> tuple[str, str]:
        if not self.tokens:
            raise NotInGrammarError("the expression is incomplete")
        return self.tokens.popleft()

    def parse_sum(self, depth: int) -> Any:
        value = self._parse_product(depth)
        while self._next_is("+", "-"):
            _, operator = self._next_token()
            right = self._parse_product(depth)
            value = value + right if operator == "+" else value - right
        return value

    def _parse_product(self, depth: int) -> Any:
        value = self._parse_signed(depth)
        while self._next_is("*", "/"):
            _, operator = self._next_token()
            right = self._parse_signed(depth)
            value = value * right if operator == "*" else value / right
        return value

    def _parse_signed(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise NotInGrammarError("nested too deeply")
        if self._next_is("+", "-"):
            _, operator = self._next_token()
            value = self._parse_signed(depth + 1)
            return -value if operator == "-" else value
        return self._parse_power(depth)

    def _parse_power(self, depth: int) -> Any:
        base = self._parse_atom(depth)
        if not self._next_is("**"):
            return base
        if self._grammar.power is None:
            raise NotInGrammarError("powers are not allowed")
        self._next_token()
        return self._grammar.power(base, self._parse_signed(depth + 1))

    def _parse_atom(self, depth: int) -> Any:
        kind, text = self._next_token()
        if kind == "number":
            if "." in text and not self._grammar.decimals:
                raise NotInGrammarError("decimals are not allowed")
            return self._grammar.number(Fraction(text))
        if kind == "name":
            if self._next_is("("):
                if text not in self._grammar.functions:
                    raise NotInGrammarError("unknown function")
                self._next_token()
                return self._grammar.functions[text](self._parse_bracketed(depth))
            if text not in self._grammar.names:
                raise NotInGrammarError("unknown name")
            return self._grammar.names[text]
        if text != "(":
            raise NotInGrammarError("a value is missing")
        return self._parse_bracketed(depth)

    def _parse_bracketed(self, depth: int) -> Any:
        """Return the value up to the closing bracket, behind the opening one."""
        value = self.parse_sum(depth + 1)
        if self._next_token() != ("operator", ")"):
            raise NotInGrammarError("a bracket is not closed")
        return value
