"""Small tokenizers of the kinds that models have beside byte-level BPE."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.engine.models import SHAPE

BOS, EOS = "<s>", "</s>"
WORDS = ["What is the capital of France? The capital is Paris. Say yes or no to a user and an assistant."] * 4
INSTRUCTIONS = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama 2's and Mistral 7B's kind: a space is put before every text and left out where one begins, unknown
    characters are tokens of one byte. 1 is <s>, 2 is </s>."""
    fast = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(split=True)  # for training alone, so that pieces are words
    special = ["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256))]
    fast.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=380, show_progress=False, special_tokens=special))
    told = json.loads(fast.to_str())
    told["pre_tokenizer"] = None
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    told["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, space]}
    told["added_tokens"] = told["added_tokens"][:3]
    fast = Tokenizer.from_str(json.dumps(told))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    fast.decoder = decoders.Sequence(steps)
    fast.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    hub = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BOS, eos_token=EOS, unk_token="<unk>")
    hub.chat_template = INSTRUCTIONS
    return hub


@cache
def metaspace() -> PreTrainedTokenizerFast:
    """The same as newer files write it: tokens are no bytes, and the decoder looks at the first."""
    told = json.loads(sentencepiece().backend_tokenizer.to_str())
    told["normalizer"] = None
    fast = Tokenizer.from_str(json.dumps(told))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    hub = PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BOS, eos_token=EOS, unk_token="<unk>")
    hub.chat_template = INSTRUCTIONS
    return hub


def save_llama(hub: PreTrainedTokenizerFast, directory: Path) -> Path:
    """Writes a random model with this tokenizer."""
    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": len(hub), "eos_token_id": hub.eos_token_id}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(directory)
    hub.save_pretrained(directory)
    return directory
