"""Token ids of this engine beside those of llama.cpp and transformers for the tokenizers of GGUF files.

    python -m load_tests.engine.gguf_tokens MODEL.gguf --llama L/bin/python --transformers T/bin/python

Encodes the same texts (code, Chinese, emoji, runs of spaces, digits, scripts mixed within words, combining marks,
special tokens spelled out, characters from all of Unicode) with each, and counts the texts of each kind whose tokens
are the same. A peer whose Python is not given is left out: L has llama-cpp-python, T transformers and gguf. A file that
holds a vocabulary alone is enough. The exit code is 1 if any text has other tokens than llama.cpp gives it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from engine.gguf.file import GGUFFile
from engine.gguf.tokenizer import eos_token_ids, tokenizer_of
from engine.tokenizer import Tokenizer

LLAMA = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], vocab_only=True, verbose=False)
json.dump([model.tokenize(text.encode(), add_bos=True, special=True) for text in json.load(sys.stdin)], sys.stdout)
"""
TRANSFORMERS = """
import json, os, sys
from transformers import AutoTokenizer
hub = AutoTokenizer.from_pretrained(os.path.dirname(sys.argv[1]) or ".", gguf_file=os.path.basename(sys.argv[1]))
json.dump([hub.encode(text) for text in json.load(sys.stdin)], sys.stdout)
"""
ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "the",
    "of",
    "and",
    "Token",
    "tokens",
    "don't",
    "I'll",
    "we've",
    "you're",
    "it's",
    "she'd",
    "I'M",
    "WE'VE",
    "naïve",
    "Straße",
    "ZIP",
    "3rd",
    "v1.2",
    "e.g.",
    "x=y",
]
SCRIPTS = (
    "abcxyzABCXYZ",
    "éàñçßøłÉÀÑǅŉ",
    "абвгдЖЩЫ",
    "αβγδΩΣ",
    "אבגד",
    "ابتثجح",
    "अआकखगिीु्",
    "กขคงเแโ",
    "ႠႡაბ",
    "가나다한글",
    "あいうカタカナ",
    "漢字汉语",
    "0123456789",
    "٠١٢३४五Ⅷ½²",
)
EMOJI = ("😀", "👍🏽", "👩‍👩‍👧", "🇫🇷", "❤️", "🏳️‍🌈", "☃", "✓", "→", "∑", "€")
SPACES = (" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85", "\u200b")
MARKS = "\u0301\u0308\u0323\u20dd\u093c\u0e48\u05b0\u064b\u200d\ufe0f"
Maker = Callable[[random.Random], str]


def joined(dice: random.Random, parts: Sequence[str], most: int = 12, between: Sequence[str] = ("", " ")) -> str:
    """Up to ``most`` of the ``parts``, with something ``between`` any two."""
    return "".join(dice.choice(parts) + dice.choice(between) for _ in range(dice.randint(1, most)))


def digits(dice: random.Random) -> str:
    """Numbers with and without separators, beside letters and spaces."""
    numbers = [str(dice.randrange(10 ** dice.randint(1, 12))) for _ in range(dice.randint(1, 6))]
    return joined(
        dice, [*numbers, "1,000,000.50", "2026-11-26", "0x1F", "1e-9"], between=["", " ", "  ", "a", "$", "\n"]
    )


def marked(dice: random.Random) -> str:
    """Letters with combining marks, some more than one and some without a letter."""
    return "".join(
        dice.choice(dice.choice(SCRIPTS)) + "".join(dice.choices(MARKS, k=dice.randint(0, 3)))
        for _ in range(dice.randint(1, 10))
    )


@cache
def sources() -> str:
    """Programs and documents of this project."""
    files = [*sorted((ROOT / "load_tests").rglob("*.py")), *sorted((ROOT / "docs").glob("*.md"))]
    return "\n".join(file.read_text("utf-8") for file in files)


def excerpt(dice: random.Random) -> str:
    """A stretch of a program or document."""
    start = dice.randrange(len(sources()))
    return sources()[start : start + dice.randint(1, 400)]


@cache
def assigned() -> str:
    """All characters that Python's Unicode knows."""
    return "".join(
        character for code in range(0x110000) if unicodedata.category(character := chr(code)) not in ("Cn", "Cs", "Co")
    )


def kinds(special: Sequence[str]) -> Mapping[str, Maker]:
    """How texts of each kind are made. ``special`` are tokens that a text can spell out."""
    spelled = [*special, *WORDS, " ", "  ", "\n", "<|", "|>", "<s", "</"]
    ideographs = [chr(code) for code in range(0x4E00, 0x4F00)] + list("，。！？「」 \n")
    return {
        "empty": lambda dice: "",
        "words": lambda dice: joined(dice, WORDS, between=[" ", " ", ", ", ". ", "\n", "", "'"]),
        "code and documents": excerpt,
        "Chinese": lambda dice: joined(dice, ideographs, 30, between=[""]),
        "emoji": lambda dice: joined(dice, [*EMOJI, *WORDS]),
        "spaces": lambda dice: joined(dice, [*SPACES, *SPACES, "a", "1", "."], 20, between=[""]),
        "digits": digits,
        "mixed scripts": lambda dice: joined(dice, ["".join(dice.choices(s, k=2)) for s in SCRIPTS], 8),
        "combining marks": marked,
        "special tokens": lambda dice: joined(dice, spelled, 6),
        "all of Unicode": lambda dice: "".join(dice.choices(assigned(), k=dice.randint(1, 20))),
    }


def make_texts(count: int, special: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
    """Kinds and texts, as many of each kind, but for the empty text."""
    dice, makers = random.Random(seed), kinds(special)
    several = [kind for kind in makers if kind != "empty"]
    return [
        ("empty", ""),
        *((kind, makers[kind](dice)) for n in range(count - 1) for kind in [several[n % len(several)]]),
    ]


def peer_tokens(python: str, script: str, file: Path, texts: Sequence[str]) -> list[list[int]]:
    """What ``script`` makes of the texts. Raises CalledProcessError with its errors if it fails."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as questions:
        json.dump(texts, questions)
        questions.seek(0)
        done = subprocess.run(
            [python, "-c", script, str(file)], stdin=questions, capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    done.check_returncode()
    return [list(map(int, ids)) for ids in json.loads(done.stdout)]


def table(found: Mapping[str, Sequence[bool]], named: Sequence[tuple[str, str]]) -> str:
    """Markdown: texts of each kind, and how many of them have the tokens that each peer gives them."""
    totals = Counter(kind for kind, _ in named)
    same = {peer: Counter(kind for (kind, _), ok in zip(named, oks, strict=True) if ok) for peer, oks in found.items()}
    rows = [f"| texts | | {' | '.join(f'as {peer}' for peer in found)} |", "| --- | ---: |" + " ---: |" * len(found)]
    for kind, total in totals.items():
        rows.append(f"| {kind} | {total:,} | {' | '.join(f'{same[peer][kind]:,}' for peer in found)} |")
    sums = " | ".join(f"{sum(oks):,}" for oks in found.values())
    return "\n".join([*rows, f"| all | {len(named):,} | {sums} |"])


def compare(file: Path, peers: Mapping[str, tuple[str, str]], options: argparse.Namespace) -> bool:
    """Prints the table of one file, and the first texts that differ. Whether all tokens are llama.cpp's."""
    metadata = GGUFFile.open(file).metadata
    hub = tokenizer_of(metadata)
    tokenizer = Tokenizer(hub, eos_token_ids(metadata))
    named = make_texts(
        options.texts,
        [token.content for token in hub.backend_tokenizer.get_added_tokens_decoder().values()],
        options.seed,
    )
    texts = [text for _, text in named]
    ours = [tokenizer.encode(text) for text in texts]
    theirs = {peer: peer_tokens(python, script, file, texts) for peer, (python, script) in peers.items()}
    found = {peer: [a == b for a, b in zip(ours, ids, strict=True)] for peer, ids in theirs.items()}
    print(f"{file.name}\n\n{table(found, named)}\n")
    for peer, oks in found.items():
        for place in [place for place, ok in enumerate(oks) if not ok][: options.show]:
            print(f"{named[place][0]}: {texts[place]!r}\n  ours {ours[place]}\n  {peer} {theirs[peer][place]}")
    return all(found.get("llama.cpp", ()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--llama", help="Python of an environment with llama-cpp-python")
    parser.add_argument("--transformers", help="Python of an environment with transformers and gguf")
    parser.add_argument("--texts", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=3, help="texts that differ, for each peer")
    options = parser.parse_args()
    asked = {"llama.cpp": (options.llama, LLAMA), "transformers": (options.transformers, TRANSFORMERS)}
    peers = {peer: (python, script) for peer, (python, script) in asked.items() if python}
    same = [compare(file, peers, options) for file in options.files]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
