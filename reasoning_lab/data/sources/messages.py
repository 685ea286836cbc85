"""Read a conversation from a row: a list of messages, in the layouts of published datasets.

`row_mapping.py` uses it. A message has a `role` and a `content`, or `from` and `value` as in
ShareGPT. A conversation is at most one system message, then the user and the assistant in turn. Its
last user's turn is the prompt, and an answer behind that is the recorded solution. A template may
write a role as markup, so no other role is passed on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_lab.data.sources.row_values import RowError, is_blank, short_repr, text_problem
from reasoning_lab.types import Message

# The keys of a message's role and text.
_LAYOUTS = (("role", "content"), ("from", "value"))
_ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    "human": "user",
    "gpt": "assistant",
}
_MALFORMED = "malformed_messages"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a row's messages are.

    Attributes:
        earlier: All before the last user's turn.
        prompt: The last user's turn.
        solution: The answer behind it; None = there is none.
    """

    earlier: tuple[Message, ...]
    prompt: str
    solution: str | None


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages in one of the layouts."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and _layout(m) is not None for m in value)
    )


def read_conversation(
    value: Sequence[Mapping[str, Any]], column: str, system: str | None = None
) -> Conversation:
    """The conversation in a column.

    Args:
        value: `is_conversation` accepts it.
        column: Its name, for an error.
        system: The system message from a column of its own; None = there is none.

    Raises:
        RowError: A role is unknown or out of turn, or a message is no text.
    """
    messages = [_message(message, f"{column}.{n}") for n, message in enumerate(value)]
    if system is not None:
        if messages[0].role == "system":
            raise RowError(
                _MALFORMED,
                f"'{column}' begins with a system message, and data.rows.system names another; "
                "leave data.rows.system out",
            )
        messages.insert(0, Message("system", system))
    start = int(messages[0].role == "system")
    for number, message in enumerate(messages[start:]):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            raise RowError(
                _MALFORMED,
                f"'{column}' has a message of the {message.role} where one of the {expected} is "
                "due; give at most one system message, then the user and the assistant in turn",
            )
    solution = messages.pop().content if messages[-1].role == "assistant" else None
    if not messages[start:]:
        raise RowError(_MALFORMED, f"'{column}' has no message of the user; give one")
    *earlier, last = messages
    return Conversation(tuple(earlier), last.content, solution)


def _layout(message: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((keys for keys in _LAYOUTS if message.keys() >= set(keys)), None)


def _message(message: Mapping[str, Any], place: str) -> Message:
    layout = _layout(message)
    assert layout is not None
    role_key, text_key = layout
    role, text = message[role_key], message[text_key]
    if not isinstance(role, str) or role not in _ROLES:
        raise RowError(
            _MALFORMED,
            f"'{place}.{role_key}' is {short_repr(role)}; only {', '.join(_ROLES)} are read, so "
            "leave such rows out",
        )
    if not isinstance(text, str) or is_blank(text):
        raise RowError(
            _MALFORMED, f"'{place}.{text_key}' is {short_repr(text)}; give a non-empty string"
        )
    problem = text_problem(text)
    if problem is not None:
        raise RowError("malformed_text", f"'{place}.{text_key}' {problem}; correct the row")
    return Message(_ROLES[role], text.strip())
