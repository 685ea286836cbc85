"""What the chat template writes of a thought."""

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from reasoning_lab.models.tokenizer import template_thought


def test_only_a_template_that_leaves_the_thought_open_opens_it() -> None:
    def of(ending: str, system: str = "") -> str:
        tokenizer = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
        fast.chat_template = (
            f"{system}{{% for m in messages %}}<|{{{{ m['role'] }}}}|>{{{{ m['content'] }}}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{ending}{{% endif %}}"
        )
        return template_thought(fast)

    assert of("") == ""
    assert of("<think>\n") == "<think>\n"
    assert of("<think>") == "<think>"
    # A thought that is over, and a mark that is only spoken of.
    assert of("<think>\n\n</think>\n\n") == ""
    assert of("", "Think in <think> first. ") == ""
    assert of("<think>\n", "Think in <think> first. ") == "<think>\n"
