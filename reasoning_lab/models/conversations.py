"""Conversations in a chat template that may know no system message.

Whether a template shows every message is seen by rendering it, because no family's name tells.
Where it refuses or leaves out a system message, the system's text stands before the first user's
turn. A policy's system prompt becomes part of its template, so it goes wherever the policy goes.
"""

import json
from collections.abc import Callable, Sequence

from reasoning_lab.models.think_tags import merge_thoughts
from reasoning_lab.types import Message, Prompt, UserError, messages_of

Chat = tuple[Message, ...]
# The text of each chat in a template, ready for an answer.
Render = Callable[[Sequence[Chat]], list[str]]

_SEPARATOR = "\n\n"
# No template changes these, and no two are parts of each other.
_PLACEHOLDER = "\ue006{}\ue006"
# Jinja writes nothing for them, and the line break after a block neither.
_SYSTEM_TURN = (
    "{{% if not messages or messages[0]['role'] != 'system' %}}"
    "{{% set messages = [{{'role': 'system', 'content': {text}}}] + messages %}}"
    "{{% endif %}}\n"
)
_IN_USER_TURN = (
    "{{% if messages and messages[0]['role'] == 'system' %}}"
    "{{% set system_prompt = messages[0]['content'] %}}{{% set messages = messages[1:] %}}"
    "{{% else %}}{{% set system_prompt = {text} %}}{{% endif %}}"
    "{{% if messages and messages[0]['role'] == 'user' %}}"
    "{{% set messages = [{{'role': 'user', 'content': system_prompt + {separator}"
    " + messages[0]['content']}}] + messages[1:] %}}"
    "{{% else %}}{{{{ raise_exception('no user turn follows the system prompt') }}}}{{% endif %}}\n"
)


def shown_chats(prompts: Sequence[Prompt], render: Render) -> list[Chat]:
    """Each prompt as messages that the template shows.

    An earlier answer has at most one thought.

    Raises:
        UserError: The template leaves a message out in each way.
    """
    chats = [_messages(prompt) for prompt in prompts]
    # A single turn is the usual case, and a template that fails on it says so itself.
    shapes = {_roles(chat) for chat in chats if len(chat) > 1}
    moved = {shape for shape in shapes if goes_into_user_turn(shape, render)}
    return [_with_system_in_user_turn(chat) if _roles(chat) in moved else chat for chat in chats]


def goes_into_user_turn(roles: Sequence[str], render: Render) -> bool:
    """Whether the template shows a chat of these roles only with its system text in a user's turn.

    Raises:
        UserError: It shows the chat in neither way.
    """
    chat = tuple(Message(role, _PLACEHOLDER.format(n)) for n, role in enumerate(roles))
    if _shows(chat, chat, render):
        return False
    if roles[0] == "system" and _shows(_with_system_in_user_turn(chat), chat, render):
        return True
    raise UserError(
        f"model: its chat template refuses or leaves out a message of a conversation "
        f"({', '.join(roles)}); correct chat_template in the checkpoint's folder, or leave such "
        "conversations out"
    )


def with_system_prompt(template: str, text: str, key: str, render: Render) -> str:
    """The template of a policy whose system prompt is `text`, where no message is the system's.

    Args:
        template: Returned as it is, if it is the result of an earlier call.
        text: Jinja reads it as a string and never as code.
        key: The config key of the text, for the error.
        render: Renders in `template`.

    Raises:
        UserError: The template shows no such text.
    """
    if template.startswith((_prefix(_SYSTEM_TURN, text), _prefix(_IN_USER_TURN, text))):
        return template
    try:
        in_user_turn = goes_into_user_turn(("system", "user"), render)
    except UserError as error:
        raise UserError(
            f"{key}: the chat template shows it neither in a system's nor in a user's turn; "
            "correct chat_template in the checkpoint's folder, or leave it out"
        ) from error
    return _prefix(_IN_USER_TURN if in_user_turn else _SYSTEM_TURN, text) + template


def has_system_prompt_in_user_turn(template: str, text: str) -> bool:
    """Whether `with_system_prompt` found a template that takes no system message."""
    return template.startswith(_prefix(_IN_USER_TURN, text))


def _prefix(form: str, text: str) -> str:
    # Jinja decodes the escapes of JSON, but not its pairs of surrogates.
    literals = (json.dumps(value, ensure_ascii=False) for value in (text, _SEPARATOR))
    return form.format(**dict(zip(("text", "separator"), literals, strict=True)))


def _messages(prompt: Prompt) -> Chat:
    return tuple(
        Message(turn.role, merge_thoughts(turn.content)) if turn.role == "assistant" else turn
        for turn in messages_of(prompt)
    )


def _roles(chat: Chat) -> tuple[str, ...]:
    return tuple(turn.role for turn in chat)


def _with_system_in_user_turn(chat: Chat) -> Chat:
    system, user, *later = chat
    return (Message("user", f"{system.content}{_SEPARATOR}{user.content}"), *later)


def _shows(chat: Chat, expected: Chat, render: Render) -> bool:
    """Whether the text of `chat` has the contents of `expected`, and its turns in order.

    Some templates write a system's text before the last turn.
    """
    try:
        (text,) = render([chat])
    except UserError:
        return False
    if any(turn.content not in text for turn in expected):
        return False
    places = [text.find(turn.content) for turn in expected if turn.role != "system"]
    return places == sorted(places)
