"""A reader of arithmetic that is never evaluated as code.

A grammar lists the names, functions and operators that a text may use. The reader is recursive
descent with Python's precedence. It computes with values that the grammar supplies: exact
fractions, the polynomials of `polynomials`, or sympy's objects. Length, digits and nesting are
bounded.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_MAX_CHARS = 2_000
_MAX_TOKENS = 1_000
_MAX_DEPTH = 30
_SPACE = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(
    r"(?P<number>[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?![0-9A-Za-z_.])"
    r"|(?P<name>[A-Za-z](?:[A-Za-z0-9]|_(?!_)){0,15})(?![A-Za-z0-9_])"
    r"|(?P<operator>\*[ \t]{0,9}\*|[-+*/()])"
)


class NotInGrammarError(ValueError):
    """The text does not fit the grammar, or a value in it exceeds the bounds."""


@dataclass(frozen=True)
class Grammar:
    """What an expression may consist of, and the values to compute with.

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

    def read(self, text: str) -> Any:
        """Return the value of `text`.

        Raises:
            NotInGrammarError: The text does not fit, or it divides by zero.
        """
        if len(text) > _MAX_CHARS:
            raise NotInGrammarError("too long")
        tokens = list(_tokens(text))
        if len(tokens) > _MAX_TOKENS:
            raise NotInGrammarError("too many tokens")
        reader = _Reader(self, tokens)
        try:
            value = reader.sum(0)
        except ZeroDivisionError as error:
            raise NotInGrammarError("division by zero") from error
        if reader.position != len(tokens):
            raise NotInGrammarError("something is left over")
        return value


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of each token."""
    position = _end_of_space(text, 0)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise NotInGrammarError("unknown character")
        # reasoning-gym reads "* *" as a power as well.
        yield match.lastgroup, match[0] if match["operator"] is None else "".join(match[0].split())
        position = _end_of_space(text, match.end())


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, grammar: Grammar, tokens: list[tuple[str, str]]) -> None:
        self._grammar = grammar
        self._tokens = tokens
        self.position = 0

    def _next_is(self, *operators: str) -> bool:
        if self.position >= len(self._tokens):
            return False
        kind, text = self._tokens[self.position]
        return kind == "operator" and text in operators

    def _take(self) -> tuple[str, str]:
        if self.position >= len(self._tokens):
            raise NotInGrammarError("the expression breaks off")
        self.position += 1
        return self._tokens[self.position - 1]

    def sum(self, depth: int) -> Any:
        value = self._product(depth)
        while self._next_is("+", "-"):
            _, operator = self._take()
            right = self._product(depth)
            value = value + right if operator == "+" else value - right
        return value

    def _product(self, depth: int) -> Any:
        value = self._signed(depth)
        while self._next_is("*", "/"):
            _, operator = self._take()
            right = self._signed(depth)
            value = value * right if operator == "*" else value / right
        return value

    def _signed(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise NotInGrammarError("nested too deeply")
        if self._next_is("+", "-"):
            _, operator = self._take()
            value = self._signed(depth + 1)
            return -value if operator == "-" else value
        return self._power(depth)

    def _power(self, depth: int) -> Any:
        base = self._atom(depth)
        if not self._next_is("**"):
            return base
        if self._grammar.power is None:
            raise NotInGrammarError("no powers here")
        self._take()
        return self._grammar.power(base, self._signed(depth + 1))

    def _atom(self, depth: int) -> Any:
        kind, text = self._take()
        if kind == "number":
            if "." in text and not self._grammar.decimals:
                raise NotInGrammarError("no decimals here")
            return self._grammar.number(Fraction(text))
        if kind == "name":
            if self._next_is("("):
                return self._call(text, depth)
            if text not in self._grammar.names:
                raise NotInGrammarError("unknown name")
            return self._grammar.names[text]
        if text != "(":
            raise NotInGrammarError("an operator stands in a value's place")
        return self._bracketed(depth)

    def _call(self, name: str, depth: int) -> Any:
        if name not in self._grammar.functions:
            raise NotInGrammarError("unknown function")
        self._take()
        return self._grammar.functions[name](self._bracketed(depth))

    def _bracketed(self, depth: int) -> Any:
        """The value up to the closing bracket; the opening one is already taken."""
        value = self.sum(depth + 1)
        if self._take() != ("operator", ")"):
            raise NotInGrammarError("a bracket is open")
        return value
