"""The model card of an embedded tier."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.trainer import TrainingRun

QUESTIONS = (
    "Hello!",
    "What is 7 + 5?",
    "Grace lives in Oslo and works as an engineer. Where does Grace live?",
    "Give three tips for staying healthy.",
)


def write_card(
    name: str,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    run: TrainingRun,
    grown_from: str | None = None,
) -> str:
    """Markdown: what it is, how it was trained, what it says, unedited."""
    parameters = sum(p.numel() for p in model.parameters())
    samples = "\n\n".join(f"> **{q}**\n>\n> {_ask(model, tokenizer, q)}" for q in QUESTIONS)
    start = f"the weights of `{grown_from}`, widened and deepened" if grown_from else "random weights"
    grow = f" --grow-from deployments/models/{grown_from}" if grown_from else ""
    return f"""# {name}

The embedded `{name}` tier: a llama-family model of {parameters / 1e6:.1f} M parameters, context 1,024 tokens,
byte-level BPE of {len(tokenizer):,} tokens, weights in bfloat16. It exists so that `make serve` and the tests
run a real model without a network or a GPU. It is not a useful assistant: its answers are short, often wrong,
and never to be relied on.

| | |
| --- | --- |
| trained on | GPTeacher (MIT) and GSM8K train (MIT), both cut to short ones, and tasks from `training/corpus.py` |
| started from | {start} |
| steps, tokens seen | {run.steps:,}, {run.tokens:,} |
| time on two CPU cores | {run.seconds / 60:.1f} minutes |
| loss on held-out conversations | {run.loss:.3f} nats per token |
| command | `python -m deployments.models.training --tier {name} --minutes {run.seconds / 60:.1f}{grow}` |

Answers by greedy decoding, unedited:

{samples}
"""


def _ask(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    prompt = torch.tensor([tokenizer.encode(str(text), add_special_tokens=False)])
    output = model.generate(prompt, max_new_tokens=80, do_sample=False)  # type: ignore[misc]
    answer = tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
    return str(answer).replace("\n", "\n> ")
