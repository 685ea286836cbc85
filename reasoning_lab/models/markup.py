"""Tokenize untrusted text around a model's control tokens, so that no text becomes one.

The tokenizer turns a chat template's markup, such as `<|im_end|>`, into control tokens. The same
markup in a prompt or a teacher's text must stay text. The tokenizer itself reads text without
markup. Other text goes to a copy of the tokenizer that knows each control token only by an alias,
a random string that no text contains; the template's own markup becomes aliases. Merges across
the border between template and text are the tokenizer's own in both cases.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from reasoning_lab.models.conversations import Chat, Render
from reasoning_lab.models.think_tags import THINK_CLOSE, THINK_OPEN
from reasoning_lab.types import Message, UserError

# Other added tokens, such as runs of spaces or words of a domain, are ordinary text.
_BRACKETED = re.compile(r"\s*[<\[\uff5c|].*[>\]\uff5c|]\s*", re.DOTALL)
# Private-use characters and a random number: no text has them, no normalization changes them.
_SALT = str(secrets.randbits(64))
_BORDER = f"\ue000{_SALT}\ue001"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text: markup that becomes a control token, or text that never does."""

    text: str
    markup: bool = False


class Markup:
    """The control tokens of one tokenizer, and tokenization that keeps text apart from them.

    Args:
        tokenizer: Its special or bracketed added tokens are the control tokens.

    Attributes:
        ids: Text of each control token to its id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.ids: dict[str, int] = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.content and (token.special or _BRACKETED.fullmatch(token.content))
        }
        self._control_ids = frozenset(self.ids.values())
        marks = sorted({*self.ids, THINK_OPEN, THINK_CLOSE}, key=len, reverse=True)
        self._numbers = {mark: number for number, mark in enumerate(marks)}
        self._pattern = re.compile("|".join(map(re.escape, marks)))

    def controls_in(self, ids: Sequence[int]) -> list[int]:
        """The control tokens among `ids`, in order."""
        control_ids = self._control_ids
        return [token for token in ids if token in control_ids]

    def occurs_in(self, text: str) -> bool:
        """Whether the text contains markup."""
        return self._pattern.search(text) is not None

    def tokens(self, texts: Sequence[Sequence[Span]]) -> list[list[int]]:
        """Token ids of each text; only its markup spans become control tokens.

        Markup that this tokenizer has no token for is text.
        """
        plain = plain_tokens(self._tokenizer, ["".join(s.text for s in spans) for spans in texts])
        expected = [
            [self.ids[span.text] for span in spans if span.markup and span.text in self.ids]
            for spans in texts
        ]
        differing = [row for row, ids in enumerate(plain) if self.controls_in(ids) != expected[row]]
        if differing:
            aliases, backend = self._aliased()
            aliased = [
                "".join(
                    aliases.get(span.text, span.text) if span.markup else span.text
                    for span in texts[row]
                )
                for row in differing
            ]
            for row, ids in zip(differing, _encoded(backend, aliased), strict=True):
                plain[row] = ids
        return plain

    def rendered_tokens(self, chats: Sequence[Chat], render: Render) -> list[list[int]]:
        """Token ids of each chat in a template; only the template's markup is control tokens.

        The thinking marks of an earlier answer are markup too, as they were where it was sampled;
        most templates leave out what stands between them.

        Args:
            chats: Their contents are inserted into the template.
            render: Renders each chat by itself.
        """
        blanks = {
            roles: tuple(Message(role, "?") for role in roles)
            for roles in dict.fromkeys(tuple(turn.role for turn in chat) for chat in chats)
        }
        texts = render([*chats, *blanks.values()])
        ids = plain_tokens(self._tokenizer, texts)
        expected = dict(zip(blanks, map(self.controls_in, ids[len(chats) :]), strict=True))
        del ids[len(chats) :]
        differing = [
            row
            for row, chat in enumerate(chats)
            if any(self.occurs_in(turn.content) for turn in chat)
            or self.controls_in(ids[row]) != expected[tuple(turn.role for turn in chat)]
        ]
        if differing:
            aliases, backend = self._aliased()
            masked = render([tuple(map(self._mask, chats[row])) for row in differing])
            aliased = [self._unmask(self._with_aliases(text, aliases)) for text in masked]
            for row, tokens in zip(differing, _encoded(backend, aliased), strict=True):
                ids[row] = tokens
        return ids

    def _mask(self, turn: Message) -> Message:
        """The content between borders, with a placeholder for each markup.

        A template that splits or searches contents cannot match the markup, and no markup can form
        across a border. Outer white space stays outside, where a template may trim it.
        """
        kept = (THINK_OPEN, THINK_CLOSE) if turn.role == "assistant" else ()
        core = turn.content.strip()
        start = turn.content.find(core)
        masked = self._pattern.sub(
            lambda mark: mark[0] if mark[0] in kept else self._placeholder(mark[0]), core
        )
        before, after = turn.content[:start], turn.content[start + len(core) :]
        return Message(turn.role, f"{before}{_BORDER}{masked}{_BORDER}{after}")

    def _placeholder(self, mark: str) -> str:
        return f"\ue002{_SALT}.{self._numbers[mark]}\ue003"

    def _unmask(self, text: str) -> str:
        """The text with its markup restored and without borders."""
        marks = list(self._numbers)
        placeholders = re.compile(f"\ue002{_SALT}\\.([0-9]+)\ue003")
        return placeholders.sub(lambda match: marks[int(match[1])], text.replace(_BORDER, ""))

    def _with_aliases(self, text: str, aliases: dict[str, str]) -> str:
        return self._pattern.sub(lambda mark: aliases.get(mark[0], mark[0]), text)

    def _aliased(self) -> tuple[dict[str, str], Tokenizer]:
        """The alias of each control token, and the cached tokenizer that knows the aliases."""
        cached = _ALIASED.get(self._tokenizer)
        if cached is None or cached[0] != self.ids:
            aliases = {mark: f"\ue004{_SALT}.{number}\ue005" for mark, number in self.ids.items()}
            cached = self.ids, aliases, _with_renamed_tokens(self._tokenizer, aliases, self.ids)
            _ALIASED[self._tokenizer] = cached
        return cached[1], cached[2]


_ALIASED: WeakKeyDictionary[
    PreTrainedTokenizerBase, tuple[dict[str, int], dict[str, str], Tokenizer]
] = WeakKeyDictionary()


def plain_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text as the tokenizer reads it: markup becomes control tokens."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _encoded(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _with_renamed_tokens(
    tokenizer: PreTrainedTokenizerBase, aliases: dict[str, str], ids: dict[str, int]
) -> Tokenizer:
    """A copy of the tokenizer whose control tokens have other names and the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            "model: a prompt or a completion contains markup such as <|end|>, which the model's "
            "tokenizer cannot read as text; choose a checkpoint with a tokenizer.json"
        )
    state: dict[str, Any] = json.loads(backend.to_str())
    state["truncation"] = state["padding"] = None
    for token in state["added_tokens"]:
        if token["content"] in aliases:
            token |= {"content": aliases[token["content"]], "normalized": False}
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {aliases.get(key, key): n for key, n in model["vocab"].items()}
    else:  # Unigram's pieces with their scores.
        model["vocab"] = [[aliases.get(key, key), score] for key, score in model["vocab"]]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
    renamed = Tokenizer.from_str(json.dumps(state))
    if any(renamed.token_to_id(alias) != ids[mark] for mark, alias in aliases.items()):
        raise UserError(
            "model: the checkpoint's tokenizer.json gives its added tokens ids that change when it "
            "is loaded; write it anew with transformers' save_pretrained"
        )
    return renamed
