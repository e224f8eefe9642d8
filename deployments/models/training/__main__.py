"""``python -m deployments.models.training``: retrain the embedded models."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training.card import write_card
from deployments.models.training.corpus import Conversation, mixture
from deployments.models.training.growth import grow
from deployments.models.training.shapes import SHAPES, VOCAB_SIZE, llama_config
from deployments.models.training.tokenizer import load_tokenizer, train_tokenizer
from deployments.models.training.trainer import Trainer

MODELS = Path(__file__).resolve().parents[1]
ROOT = MODELS.parents[1]

GROWN = 0.15  # of the usual learning rate: at the full one a grown model forgets what it grew from


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training",
        description="Train the embedded models and write them to deployments/models/{fast,balanced,frontier} in "
        "Hugging Face layout. A run that was interrupted goes on from its checkpoint.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tier", choices=[*SHAPES, "all"], default="all", help="which to train")
    parser.add_argument("--minutes", type=float, default=4.0, help="wall-clock budget of each tier's training")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder that holds corpus/")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training", help="folder for checkpoints")
    parser.add_argument("--tasks", type=int, default=12_000, help="generated tasks in the mixture")
    parser.add_argument(
        "--grow-from",
        type=Path,
        metavar="DIR",
        help="start as this smaller model, for instance deployments/models/fast",
    )
    parser.add_argument("--seed", type=int, default=0, help="of data, initialisation and order")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    conversations = mixture(options.data, options.tasks, options.seed)
    tokenizer = shared_tokenizer(conversations, options.work / "tokenizer")
    tokens = encode(conversations, tokenizer)
    print(f"{len(conversations):,} conversations, {len(tokens):,} tokens")
    for name in SHAPES if options.tier == "all" else [options.tier]:
        train(name, tokenizer, tokens, options)


def shared_tokenizer(conversations: list[Conversation], directory: Path) -> PreTrainedTokenizerFast:
    """One tokenizer for all tiers: trained once, then reused."""
    if not directory.exists():
        texts = (text for c in conversations for text in (c.user, c.assistant))
        train_tokenizer(texts, VOCAB_SIZE).save_pretrained(str(directory))
    return load_tokenizer(directory)


def encode(conversations: list[Conversation], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """All conversations through the chat template, end to end. Returns 1-D int64."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": c.user}, {"role": "assistant", "content": c.assistant}], tokenize=False
        )
        for c in conversations
    ]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in ids])


def train(name: str, tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor, options: argparse.Namespace) -> None:
    """Train one tier and write its directory."""
    shape = SHAPES[name]
    torch.manual_seed(options.seed)
    config = llama_config(shape, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    model = LlamaForCausalLM(config)
    if options.grow_from is not None:
        grow(LlamaForCausalLM.from_pretrained(str(options.grow_from), dtype=torch.float32), model)
    checkpoint = options.work / f"{name}.pt"
    peak = shape.learning_rate * (GROWN if options.grow_from is not None else 1.0)
    trainer = Trainer(model, tokens, seconds=options.minutes * 60, peak=peak, checkpoint=checkpoint, seed=options.seed)
    run = trainer.run(name)
    model.eval()
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    card = write_card(name, model, tokenizer, run, options.grow_from and options.grow_from.name)
    model.to(torch.bfloat16).save_pretrained(str(MODELS / name))  # type: ignore[arg-type]
    tokenizer.save_pretrained(str(MODELS / name))
    (MODELS / name / "README.md").write_text(card, encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    print(f"{name}: loss {run.loss:.3f} after {run.steps:,} steps")


if __name__ == "__main__":
    main()
