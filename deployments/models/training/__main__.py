"""``python -m deployments.models.training``: retrain the embedded models."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import sys
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.models.training import heldout
from deployments.models.training.card import write_card
from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.english import Conversation, read_english
from deployments.models.training.growth import grow
from deployments.models.training.shapes import SHAPES, TIERS, VOCAB_SIZE, Shape, llama_config
from deployments.models.training.stream import BEGINNING, FIRST, GROWN, Stream
from deployments.models.training.tokenizer import load_tokenizer, train_tokenizer
from deployments.models.training.trainer import Trainer, has_bfloat16
from load_tests.quality.item import read_held_out

MODELS = Path(__file__).resolve().parents[1]
ROOT = MODELS.parents[1]
TOKENIZER_TASKS = 60_000  # tasks that the tokenizer is trained on, beside all the English


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training",
        description="Train the embedded models and write them in Hugging Face layout, each with a model card that "
        "holds its figures. Without options: all three, one after another, each larger one grown from a smaller. "
        "A run that was interrupted goes on from its last checkpoint, at most a minute back.",
        epilog="A GPU is used if there is one. On two CPU cores the fast tier takes about 20 minutes, all three a few "
        "hours. Example: python -m deployments.models.training --tier fast --models /tmp/again",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tier", choices=[*TIERS, "all"], default="all", help="which to train")
    parser.add_argument("--tokens", type=int, help="tokens to read, instead of what shapes.py says")
    parser.add_argument("--rate", type=float, help="peak learning rate, instead of what shapes.py says")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder that holds corpus/")
    parser.add_argument("--models", type=Path, default=MODELS, help="where the models go, and where smaller ones are")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training", help="folder for checkpoints")
    parser.add_argument("--fresh", action="store_true", help="throw away checkpoints and tokenizer of earlier runs")
    parser.add_argument("--seed", type=int, default=0, help="of data, initialisation and order")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        english = read_english(options.data)
    except FileNotFoundError as error:
        sys.exit(f"--data: {error}")
    tokenizer = shared_tokenizer(english, options.work / "tokenizer", options.seed)
    print(f"{len(english):,} English conversations, {len(tokenizer):,} tokens in the vocabulary")
    for name in SHAPES if options.tier == "all" else needed(options.tier):
        train(name, tokenizer, english, options)


def place(name: str, options: argparse.Namespace) -> Path:
    """Where a model goes; what is no tier only serves to start another, and stays among the checkpoints."""
    directory: Path = options.models if name in TIERS else options.work / "models"
    return directory / name


def needed(tier: str) -> list[str]:
    """The tier, after what it begins with, unless that is a tier, which has to be there. What the same command has
    trained before takes no step more."""
    source = SHAPES[tier].grown_from
    return [tier] if source is None or source in TIERS else [*needed(source), tier]


def shared_tokenizer(english: list[Conversation], directory: Path, seed: int) -> PreTrainedTokenizerFast:
    """One tokenizer for all tiers: trained once, then reused."""
    if not directory.exists():
        tasks = (turn.content for t in draw_tasks(TOKENIZER_TASKS, f"tokenizer {seed}") for turn in t.turns)
        spoken = (turn.content for turns in english for turn in turns)
        partial = directory.with_suffix(".partial")
        train_tokenizer(itertools.chain(tasks, spoken), VOCAB_SIZE).save_pretrained(str(partial))
        partial.replace(directory)  # a run cut here leaves no half of one
    return load_tokenizer(directory)


def train(
    name: str, tokenizer: PreTrainedTokenizerFast, english: list[Conversation], options: argparse.Namespace
) -> None:
    """Train one tier and write its directory."""
    shape = SHAPES[name]
    first, mixture = (BEGINNING, GROWN) if shape.grown_from else (0, FIRST)
    # The tier is part of the seed: one that grew from another reads something new.
    seed = f"{options.seed}/{shape.reads or name}"
    stream = Stream(tokenizer, english, batch_tokens=shape.batch_tokens, seed=seed, first=first, mixture=mixture)
    model = start(shape, tokenizer, options)  # before anything looks at the weights it grows from
    trainer = Trainer(
        model,
        stream,
        budget=shape.tokens if options.tokens is None else options.tokens,
        peak=shape.learning_rate if options.rate is None else options.rate,
        checkpoint=options.work / f"{name}.pt",
        identity=f"{shape} {mixture} seed {seed}, grown from {fingerprint(shape, options)}",
    )
    try:
        run = trainer.run(name)
    except ValueError as error:
        sys.exit(str(error))
    device = described(model.device)
    directory = place(name, options)
    save(model, tokenizer, directory)
    if name not in TIERS:
        return
    held_out = read_english(options.data, held_out=True)
    card = write_card(
        name,
        directory,
        model.float(),
        tokenizer,
        run,
        shape,
        held_out,
        read_held_out(heldout.PATH).items,
        seed=options.seed,
        device=device,
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
    print(f"{name}: {directory / 'README.md'}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Writes the model in bfloat16, which it is from then on, on the CPU, and its tokenizer."""
    model.cpu().eval()
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(str(directory))  # type: ignore[arg-type]
    tokenizer.save_pretrained(str(directory))


def fingerprint(shape: Shape, options: argparse.Namespace) -> str:
    """Of the weights that a model starts with."""
    if shape.grown_from is None:
        return "nothing"
    digest = hashlib.sha256()
    for path in sorted(place(shape.grown_from, options).glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def described(device: torch.device) -> str:
    """The hardware, for the card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores{' with AVX-512 BF16' if has_bfloat16(device) else ''}"


def start(shape: Shape, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> LlamaForCausalLM:
    """The untrained model: random, or grown from the smaller tier."""
    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(
        llama_config(shape, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    )
    if shape.grown_from is not None:
        smaller = place(shape.grown_from, options)
        if not any(smaller.glob("*.safetensors")):
            sys.exit(f"{smaller} holds no weights to grow from: train {shape.grown_from} first")
        grow(LlamaForCausalLM.from_pretrained(str(smaller), dtype=torch.float32, local_files_only=True), model)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    return model


if __name__ == "__main__":
    main()
