"""Checks of the tokenizer, its control tokens and their rows of the embeddings."""

from collections.abc import Sequence

from torch import Tensor

from reasoning_lab.data.tokens.documents import document_of
from reasoning_lab.doctor.check import Check, Result, not_applicable, ok, wrong
from reasoning_lab.doctor.model_under_test import QUESTION, ModelUnderTest
from reasoning_lab.models.chat import stop_token_ids, unused_ids_mask
from reasoning_lab.models.conversations import has_system_prompt_in_user_turn
from reasoning_lab.models.markup import Markup, plain_tokens
from reasoning_lab.models.tokenizer import completion_tokens, prompt_tokens, render_chats
from reasoning_lab.sampling.engine import completions_of

_ANSWER = "It is 7."
_TEXTS = (
    "1234567890.25 and 3,141",
    r"\frac{\sqrt{2}}{3} \le x_1^{2}, so \boxed{7}",
    "x != y , and é ≤ 水 — “so”",
    "a  b\n\n\tC",
)


def _loads(model: ModelUnderTest) -> Result:
    """`load_tokenizer` refuses a tokenizer or a template that fails."""
    if not model.tokenizer.init_kwargs.get("chat_template"):
        return ok("it has no chat template, so it gets a plain one")
    prompt_tokens(model.tokenizer, [problem.model_prompt for problem in model.problems])
    system_prompt, template = model.options.system_prompt, str(model.tokenizer.chat_template)
    if system_prompt and has_system_prompt_in_user_turn(template, system_prompt):
        return ok("the template takes no system message, so its text begins the first user's turn")
    return ok()


def _start_twice(model: ModelUnderTest) -> Result:
    start = model.tokenizer.bos_token_id
    if start is None:
        return not_applicable("the tokenizer has no start token")
    if model.prompt_ids[:2] == [start, start]:
        return wrong(
            f"model.path: a prompt begins with {model.tokenizer.bos_token!r} twice; take one out "
            "of the chat template"
        )
    return ok()


def _start_missing(model: ModelUnderTest) -> Result:
    tokenizer = model.tokenizer
    start = tokenizer.bos_token_id
    if start is None or tokenizer("a")["input_ids"][:1] != [start]:
        return not_applicable("the tokenizer puts no start token before a text")
    if model.prompt_ids[0] != start:
        return wrong(
            f"model.path: the tokenizer begins a text with {tokenizer.bos_token!r}, and the chat "
            "template does not; begin it with {{ bos_token }}"
        )
    return ok()


def _end_untrained(model: ModelUnderTest) -> Result:
    tokenizer, end = model.tokenizer, model.tokenizer.eos_token_id
    if end is None:
        return wrong(
            "model.path: the tokenizer has no end token, so no completion learns to stop; set "
            "eos_token in tokenizer_config.json"
        )
    chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": _ANSWER}]
    (text,) = render_chats(tokenizer, [chat], add_generation_prompt=False)
    turn_end = text.rpartition(_ANSWER)[2].strip()
    (turn_end_ids,) = plain_tokens(tokenizer, [turn_end])
    if turn_end and end not in turn_end_ids:
        return wrong(
            f"model.path: the chat template ends a turn with {turn_end!r}, which is no control "
            f"token, and training with {tokenizer.eos_token!r}; add it to the tokenizer's special "
            "tokens, or end the template's turn with {{ eos_token }}"
        )
    document = document_of(model.example)
    if document.token_ids[-1] != end or not document.loss_mask[-1]:
        return wrong("model.path: the end token is not in the loss; report this as a bug")
    configured = str(tokenizer.init_kwargs.get("eos_token") or tokenizer.eos_token)
    if configured != tokenizer.eos_token:
        return ok(
            f"a completion ends with {tokenizer.eos_token!r}, as a turn does, and not with "
            f"{configured!r}"
        )
    return ok()


def _stops_on_text(model: ModelUnderTest) -> Result:
    tokenizer, markup = model.tokenizer, Markup(model.tokenizer)
    for token in stop_token_ids(model.policy, tokenizer):
        if not markup.controls_in([token]):
            text = tokenizer.convert_ids_to_tokens(token)
            return wrong(
                f"model.path: generation stops at token {token} ({text!r}), which is ordinary "
                "text; correct eos_token_id in generation_config.json"
            )
    return ok()


def _pad_frozen(model: ModelUnderTest) -> Result:
    tokenizer, policy = model.tokenizer, model.policy
    embedding = policy.get_input_embeddings()
    padding: int | None = getattr(embedding, "padding_idx", None)
    if padding is None:
        return not_applicable("the embedding has no row for padding")
    example, head = model.example, policy.get_output_embeddings()
    read = [*example.prompt_ids, *example.completion_ids[:-1]]
    if padding not in read:
        if padding != tokenizer.eos_token_id:
            return ok()
        return ok("padding is the end token, which is trained, as masks go by position")
    text = tokenizer.convert_ids_to_tokens(padding)
    if getattr(head, "weight", None) is embedding.weight:
        return ok(
            f"padding is {text!r}, which prompts contain; its row learns as an output's alone"
        )
    return wrong(
        f"model.path: padding is {text!r}, which prompts contain, so this row of the embedding "
        "gets no gradient; set pad_token_id in config.json to a token that no text contains"
    )


def _tokens_without_rows(model: ModelUnderTest) -> Result:
    rows = _embeddings(model)[0].shape[0]
    needed = max(model.tokenizer.get_vocab().values()) + 1
    if needed > rows:
        return wrong(
            f"model.path: the tokenizer has ids up to {needed - 1:,}, and the embedding "
            f"{rows:,} rows; call resize_token_embeddings, or take out the added tokens"
        )
    unused = unused_ids_mask(model.policy, model.tokenizer)
    if unused is None:
        return ok()
    return ok(f"{int(unused.sum()):,} rows have no token, and are never sampled")


def _markup_untrained(model: ModelUnderTest) -> Result:
    tokenizer, example = model.tokenizer, model.example
    ids = [*example.prompt_ids, *example.completion_ids]
    # torch makes the row of padding zero, and `pad-equals-text` is about it.
    padding = getattr(model.policy.get_input_embeddings(), "padding_idx", None)
    controls = [t for t in dict.fromkeys(Markup(tokenizer).controls_in(ids)) if t != padding]
    for table in _embeddings(model):
        rows = table.detach()[controls].float()
        for place, token in enumerate(controls):
            alike = (rows == rows[place]).all(-1)
            if not rows[place].any() or int(alike.sum()) > 1:
                return wrong(
                    f"model.path: the row of {tokenizer.convert_ids_to_tokens(token)!r} in the "
                    "embedding is zero, or another control token's, so it was never trained; set "
                    "it to the mean of the rows, or take the checkpoint that was trained on chats"
                )
    return ok()


def _text_lost(model: ModelUnderTest) -> Result:
    tokenizer = model.tokenizer
    ids = completion_tokens(tokenizer, _TEXTS)
    completions = completions_of(tokenizer, [(tokens, (), False) for tokens in ids])
    for text, completion in zip(_TEXTS, completions, strict=True):
        if completion.text != text:
            return wrong(
                f"model.path: {text!r} becomes {completion.text!r} when it is tokenized and "
                "decoded; correct the normalizer, the decoder and clean_up_tokenization_spaces"
            )
    return ok()


def _data_as_markup(model: ModelUnderTest) -> Result:
    tokenizer, added = model.tokenizer, model.tokenizer.added_tokens_decoder
    (plain,) = prompt_tokens(tokenizer, [QUESTION])
    marks = {token: added[token].content for token in plain if token in added}
    (attacked,) = prompt_tokens(tokenizer, [f"{QUESTION} {' '.join(marks.values())}"])
    for token, text in marks.items():
        if attacked.count(token) > plain.count(token):
            return wrong(
                f"model.path: {text!r} in a problem's text becomes the template's own control "
                "token; list it under the tokenizer's special tokens"
            )
    return ok()


def _embeddings(model: ModelUnderTest) -> Sequence[Tensor]:
    """Weights of the input and the output embeddings, `[V, H]`."""
    modules = (model.policy.get_input_embeddings(), model.policy.get_output_embeddings())
    return [module.weight for module in modules if module is not None]  # type: ignore[misc]


LOADS = ("tokenizer-unreadable",)
TOKENIZER_CHECKS = (
    Check(
        "tokenizer-unreadable",
        "The tokenizer does not load, or its chat template fails or refuses a user's turn.",
        "https://github.com/unslothai/unsloth/issues/334",
        _loads,
    ),
    Check(
        "start-token-twice",
        "Template and tokenizer both add the start token, which no text in training began with.",
        "https://github.com/deepseek-ai/DeepSeek-R1/issues/151",
        _start_twice,
        LOADS,
    ),
    Check(
        "start-token-missing",
        "The model was trained with a start token, and its prompts have none.",
        "https://github.com/unslothai/unsloth/pull/10312",
        _start_missing,
        LOADS,
    ),
    Check(
        "end-token-not-trained",
        "What is trained to end a completion is not what ends the template's turn.",
        "https://github.com/huggingface/trl/issues/1623",
        _end_untrained,
        LOADS,
    ),
    Check(
        "text-lost",
        "Text is not what it was once it is tokenized and decoded, so answers change.",
        "https://github.com/huggingface/transformers/issues/40088",
        _text_lost,
        (*LOADS, "end-token-not-trained"),
    ),
    Check(
        "data-becomes-markup",
        "A prompt that contains a control token's text forges turns or ends.",
        "https://github.com/huggingface/transformers/issues/29279",
        _data_as_markup,
        LOADS,
    ),
)
_NEEDS_WEIGHTS = (*LOADS, "end-token-not-trained", "weights-unreadable")
# They look at the weights too, so these must have been loaded.
EMBEDDING_CHECKS = (
    Check(
        "token-without-row",
        "A token's id is beyond the embedding, which ends the run or reads foreign memory.",
        "https://github.com/huggingface/transformers/issues/23401",
        _tokens_without_rows,
        _NEEDS_WEIGHTS,
    ),
    Check(
        "stops-on-text",
        "An id in eos_token_id is an ordinary token, so answers end in the middle.",
        "https://github.com/huggingface/open-r1/pull/663",
        _stops_on_text,
        _NEEDS_WEIGHTS,
    ),
    Check(
        "pad-equals-text",
        "Padding shares its token with prompts or ends, and what masks padding masks these.",
        "https://github.com/huggingface/trl/pull/6357",
        _pad_frozen,
        (*_NEEDS_WEIGHTS, "token-without-row"),
    ),
    Check(
        "markup-never-trained",
        "Control tokens of the template have empty rows, and training becomes NaN or learns none.",
        "https://github.com/huggingface/trl/issues/1668",
        _markup_untrained,
        (*_NEEDS_WEIGHTS, "token-without-row"),
    ),
)
