"""``HubTokenizer``: the interface of Hugging Face tokenizers that the engine uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer as FastTokenizer


class HubTokenizer(Protocol):
    """A tokenizer of the library tokenizers, with its chat template. transformers' ``PreTrainedTokenizerFast`` is
    one."""

    @property
    def backend_tokenizer(self) -> FastTokenizer: ...

    @property
    def chat_template(self) -> Any:
        """The source of the template, or of several by name; None without one."""
        ...

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        """The text of each special token by its role, such as ``eos_token``."""
        ...


@dataclass(frozen=True, slots=True)
class PlainTokenizer:
    """A ``HubTokenizer`` made without transformers, whose import takes 1 s and 20 MB."""

    backend_tokenizer: FastTokenizer
    chat_template: str | Mapping[str, str] | None
    special_tokens_map: Mapping[str, str]
