"""About how many tokens documents take, counted before there is a policy; imports no torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from reasoning_lab.config.model import ModelConfig

log = logging.getLogger(__name__)

_TOKENIZER_FILE = "tokenizer.json"


def shortest_document(texts: Sequence[str], model: ModelConfig) -> int | None:
    """Tokens of the shortest of `texts`, without what the chat template adds.

    A model from scratch has no tokenizer yet: one of its size is trained on `texts` alone. It knows
    them better than the model's own will, so its count is rather too small than too large.

    Returns:
        None where there is no text, or a checkpoint's tokenizer is not on this machine.
    """
    return min(document_lengths(texts, model) or [], default=None)


def document_lengths(texts: Sequence[str], model: ModelConfig) -> list[int] | None:
    """Tokens of each of `texts`, as `shortest_document` counts them."""
    if not texts:
        return []
    tokenizer = _trained(texts, model.vocab_size) if model.path is None else _local(model)
    if tokenizer is None:
        return None
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def _trained(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _local(model: ModelConfig) -> Tokenizer | None:
    """The checkpoint's tokenizer, from its folder or the cache of the hub; None = in neither."""
    file = _local_file(str(model.path), model.revision)
    if file is None:
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # The library raises nothing narrower.
        log.warning("%s cannot be read (%s), so lengths are not checked beforehand.", file, error)
        return None


def _local_file(path: str, revision: str | None) -> Path | None:
    if Path(path).is_dir():
        file = Path(path) / _TOKENIZER_FILE
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(path, _TOKENIZER_FILE, revision=revision)
    return Path(cached) if isinstance(cached, str) else None
