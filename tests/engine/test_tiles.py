"""Products and attention in tile registers: the processor's and their emulation compute the same bits, and those depend
on nothing but the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import SamplingParams
from engine.kernels.cpu import compiler
from engine.kernels.cpu import tiles as module
from engine.kernels.cpu.compiler import CompilerError, built
from engine.kernels.cpu.library import BFLOAT16, Linear, loaded
from engine.kernels.cpu.packing import GROUPED_TYPES, WEIGHT_TYPES, coded_panels, grouped_panels, panels
from engine.kernels.cpu.runner import CompiledRunner
from engine.kernels.cpu.tiles import VARIABLE, Tiles, tiles
from engine.quant.format import INT4, INT8
from engine.quant.quantise import quantise
from tests.engine.compiled import make_engine
from tests.engine.families import Recorded, record, write_family
from tests.engine.grouped import random_matrix
from tests.engine.kernel_builds import LibraryOf, UseTiles
from tests.engine.models import VOCAB, ragged_prompts
from tests.engine.products import product

ANSWER = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
ROWS = (1, 4, 5, 8, 15, 16, 17, 31, 32, 33, 100, 544, 600)
# Outputs and inputs: whole registers and lines, and parts of them. 600 rows of 1,056 inputs go slab by slab.
SHAPES = [(16, 16), (40, 48), (549, 1056), (64, 80), (320, 80)]
WAYS: dict[str, dict[str, Any]] = {
    "one token at a time": {"prefill_chunk": 1},
    "seven tokens at a time": {"prefill_chunk": 7},
    "two threads": {"threads": 2},
    "preempted": {"kv_cache_tokens": 416},
}


@pytest.fixture
def forget_choice() -> Iterator[None]:
    """This process chooses again, and forgets that afterwards."""
    tiles.cache_clear()
    yield
    tiles.cache_clear()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of that family whose sizes are no whole registers, with heads of 16 channels or of 32."""

    @cache
    def make(name: str) -> Path:
        shape = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80}
        head_dim = 32 if name == "qwen3" else 16
        return write_family(name, tmp_path_factory.mktemp("tiles") / name, head_dim=head_dim, **shape)

    return make


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, CompiledRunner)


def bfloat16_weights(outputs: int, inputs: int) -> tuple[Linear, Tensor, object]:
    """For the kernels, the weights in float64, and the memory that they read."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(inputs)).bfloat16()
    packed = panels(weight, tiled=True)
    return Linear(packed.data_ptr(), None, None, inputs, outputs, BFLOAT16), weight.double(), packed


def rows_of(count: int, inputs: int) -> Tensor:
    """bfloat16 numbers of many sizes, as float32; among them zeros and some too small to be normal."""
    generator = torch.Generator().manual_seed(count)
    exponents = torch.randint(-12, 12, (count, inputs), generator=generator).float()
    x = torch.randn(count, inputs, generator=generator) * exponents.exp2()
    x[:, ::7] = 0
    x[:, 3::11] = 1e-39
    return x.bfloat16().float()


@pytest.mark.parametrize("registers", [Tiles.EMULATED, Tiles.HARDWARE], ids=lambda each: each.name)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_products_are_those_of_the_weights_and_a_row_depends_on_itself_alone(
    library_of: LibraryOf, registers: Tiles, outputs: int, inputs: int
) -> None:
    library = library_of(registers)
    linear, weight, _kept = bfloat16_weights(outputs, inputs)
    x = rows_of(max(ROWS), inputs)
    alone = torch.cat([product(library, linear, row) for row in x.split(1)])

    bound = (x.double().abs() @ weight.abs().T) * inputs * torch.finfo(torch.float32).eps + 1e-30
    assert ((alone.double() - x.double() @ weight.T).abs() <= bound).all()
    for rows in ROWS:
        assert torch.equal(product(library, linear, x[:rows].contiguous()), alone[:rows])
    assert torch.equal(product(library, linear, x, 2), alone)


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_the_emulation_gives_the_processors_bits(library_of: LibraryOf, outputs: int, inputs: int) -> None:
    linear, _weight, _kept = bfloat16_weights(outputs, inputs)
    for rows in ROWS:
        x = rows_of(rows, inputs)
        found = [product(library_of(each), linear, x) for each in (Tiles.HARDWARE, Tiles.EMULATED)]
        assert torch.equal(*found)


@pytest.mark.parametrize("registers", [Tiles.EMULATED, Tiles.HARDWARE], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", ["int8", "int4", "grouped 8", "grouped 4"])
def test_whole_numbers_give_the_bits_of_other_instructions(library_of: LibraryOf, registers: Tiles, kind: str) -> None:
    """Where both kinds fuse a multiplication with an addition."""
    if not torch.cpu._is_vnni_supported():
        pytest.skip("this processor adds the groups up in another way")
    outputs, inputs = 40, 1184
    if kind.startswith("grouped"):
        matrix = random_matrix(outputs, inputs, 8 if kind.endswith("8") else 4)
        numbers, scales = grouped_panels(matrix)
        number = GROUPED_TYPES[matrix.bits]
    else:
        form = INT8 if kind == "int8" else INT4
        weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
        numbers, scales = coded_panels(quantise(weight, form), form)
        number = WEIGHT_TYPES[form]
    linear = Linear(numbers.data_ptr(), scales.data_ptr(), None, inputs, outputs, number)
    for rows in ROWS:
        x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
        assert torch.equal(*(product(library_of(each), linear, x) for each in (registers, Tiles.NONE)))


def test_what_is_no_number_stays_in_its_row(library_of: LibraryOf) -> None:
    linear, _weight, _kept = bfloat16_weights(40, 80)
    x = rows_of(33, 80)
    library = library_of(Tiles.EMULATED)
    clean = product(library, linear, x)
    x[20, 7] = torch.nan

    found = product(library, linear, x)

    assert found[20].isnan().all()
    assert torch.equal(torch.cat([found[:20], found[21:]]), torch.cat([clean[:20], clean[21:]]))


@pytest.mark.parametrize("kv_dtype", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_every_way_to_cut_the_work_gives_the_same_bits(
    directory: Callable[[str], Path],
    recorded: Recorded,
    use_tiles: UseTiles,
    name: str,
    kv_dtype: str,
) -> None:
    """With the emulation, so on every processor."""
    use_tiles(Tiles.EMULATED)
    prompts = ragged_prompts(VOCAB)
    make_engine(directory(name), dtype="bfloat16", kv_dtype=kv_dtype).generate(prompts, ANSWER)
    plain = dict(recorded)
    for way in WAYS.values():
        recorded.clear()
        make_engine(directory(name), dtype="bfloat16", kv_dtype=kv_dtype, **way).generate(prompts, ANSWER)
        assert recorded.keys() == plain.keys()
        assert all(torch.equal(recorded[key], plain[key]) for key in plain)


@pytest.mark.parametrize("kv_dtype", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_logits_are_those_without_tiles_but_for_rounding(
    directory: Callable[[str], Path],
    recorded: Recorded,
    use_tiles: UseTiles,
    name: str,
    kv_dtype: str,
) -> None:
    one = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    found = []
    for registers in (Tiles.NONE, Tiles.EMULATED):
        use_tiles(registers)
        make_engine(directory(name), dtype="bfloat16", kv_dtype=kv_dtype).generate(ragged_prompts(VOCAB), one)
        found.append(dict(recorded))
        recorded.clear()

    without, with_tiles = (torch.stack([rows[key] for key in found[0]]) for rows in found)
    assert float((with_tiles - without).norm() / without.norm()) < 0.08  # a byte on the edge of two moves a whole row


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_the_emulated_step_gives_the_processors_bits(
    directory: Callable[[str], Path],
    recorded: Recorded,
    use_tiles: UseTiles,
    name: str,
) -> None:
    found = []
    for registers in (Tiles.HARDWARE, Tiles.EMULATED):
        use_tiles(registers)
        make_engine(directory(name), dtype="bfloat16").generate(ragged_prompts(VOCAB), ANSWER)
        found.append(dict(recorded))
        recorded.clear()

    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[1][key], row) for key, row in found[0].items())


@pytest.mark.parametrize(
    ("registers", "settings", "name"),
    [
        (Tiles.NONE, {"dtype": "bfloat16"}, "compiled"),
        (Tiles.EMULATED, {"dtype": "float32"}, "compiled"),
        (Tiles.EMULATED, {"dtype": "bfloat16"}, "compiled-amx-emulated"),
    ],
)
def test_metrics_name_the_kernels(
    directory: Callable[[str], Path],
    use_tiles: UseTiles,
    registers: Tiles,
    settings: dict[str, Any],
    name: str,
) -> None:
    use_tiles(registers)

    assert make_engine(directory("llama"), **settings).metrics().kernels == {name: 1}


@pytest.mark.usefixtures("forget_choice")
def test_a_compiler_that_knows_no_tiles_builds_without_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiler, "tiles", lambda: Tiles.HARDWARE)
    compile_one = compiler._compile

    def refusing(name: str, flags: tuple[str, ...], entry: Path, library: Path) -> None:
        if "-DTILES=1" in flags:
            raise CompilerError("no such instruction: tdpbf16ps")
        compile_one(name, ("-O0", *flags[1:]), entry, library)

    monkeypatch.setattr(compiler, "_compile", refusing)

    assert loaded(built(tmp_path)).manta_tiles() == Tiles.NONE
    assert "AMX: off; the kernels cannot be built for it: no such instruction: tdpbf16ps" in caplog.text
    with pytest.raises(CompilerError):
        built(tmp_path, Tiles.HARDWARE)


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("kv_dtype", ["auto", "float32", "int8"])
def test_a_prompt_of_several_chunks_with_a_window_gives_the_same_bits_in_pieces(
    recorded: Recorded,
    use_tiles: UseTiles,
    tmp_path: Path,
    block_size: int,
    kv_dtype: str,
) -> None:
    """Heads of 48 channels; some layers see 300 tokens, the others all of 620, in chunks of 256."""
    use_tiles(Tiles.EMULATED)
    shape = {"hidden_size": 48, "head_dim": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    long = {"intermediate_size": 80, "sliding_window": 300, "max_position_embeddings": 1024}
    write_family("gemma2", tmp_path, **shape, **long)
    settings: dict[str, Any] = {"dtype": "bfloat16", "kv_dtype": kv_dtype, "block_size": block_size}
    prompts = [[(at * 7 + 3) % (VOCAB - 1) + 1 for at in range(length)] for length in (620, 40)]
    make_engine(tmp_path, **settings, prefill_chunk=700).generate(prompts, ANSWER)
    whole = dict(recorded)
    recorded.clear()

    make_engine(tmp_path, **settings, prefill_chunk=97).generate(prompts, ANSWER)

    assert recorded.keys() == whole.keys()
    assert all(torch.equal(recorded[key], row) for key, row in whole.items())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "sizes", "kv_dtype"),
    [
        ("gemma2", {"head_dim": 16}, "auto"),
        ("gemma2", {"head_dim": 16, "hidden_size": 64, "intermediate_size": 16}, "auto"),
        ("qwen3", {"head_dim": 32}, "auto"),
        ("qwen3", {"head_dim": 32}, "int8"),
        ("qwen3", {"head_dim": 32}, "float32"),
        ("llama", {"head_dim": 48, "hidden_size": 48, "intermediate_size": 2080}, "auto"),
    ],
)
def test_rows_that_threads_take_for_their_own_give_the_same_bits(
    recorded: Recorded,
    use_tiles: UseTiles,
    tmp_path: Path,
    name: str,
    sizes: dict[str, int],
    kv_dtype: str,
    threads: int,
) -> None:
    """620 rows at once are enough for each of three threads to take some as its own; 60 are not. One family norms what
    a block adds, the others do not. Keys of 32 channels fill whole panels of a page where 16 tokens come at once; 2,080
    inputs go slab by slab."""
    use_tiles(Tiles.EMULATED)
    write_family(name, tmp_path, **{"intermediate_size": 80, "max_position_embeddings": 1024, **sizes})
    settings: dict[str, Any] = {"dtype": "bfloat16", "kv_dtype": kv_dtype, "threads": threads}
    prompts = [[(at * 7 + 3) % (VOCAB - 1) + 1 for at in range(length)] for length in (590, 30)]
    make_engine(tmp_path, **settings, prefill_chunk=700).generate(prompts, ANSWER)
    whole = dict(recorded)
    recorded.clear()

    make_engine(tmp_path, **settings, prefill_chunk=60).generate(prompts, ANSWER)

    assert recorded.keys() == whole.keys()
    assert all(torch.equal(recorded[key], row) for key, row in whole.items())


@pytest.mark.parametrize("weight_dtype", ["int8", "int4"])
def test_a_step_of_whole_numbers_gives_the_same_bits_in_pieces(
    recorded: Recorded,
    use_tiles: UseTiles,
    tmp_path: Path,
    weight_dtype: str,
) -> None:
    use_tiles(Tiles.EMULATED)
    write_family("llama", tmp_path, hidden_size=64, head_dim=16, num_attention_heads=4, intermediate_size=96)
    settings: dict[str, Any] = {"dtype": "bfloat16", "weight_dtype": weight_dtype}
    make_engine(tmp_path, **settings).generate(ragged_prompts(VOCAB), ANSWER)
    whole = dict(recorded)
    recorded.clear()

    make_engine(tmp_path, **settings, prefill_chunk=7).generate(ragged_prompts(VOCAB), ANSWER)

    assert recorded.keys() == whole.keys()
    assert all(torch.equal(recorded[key], row) for key, row in whole.items())


@pytest.mark.usefixtures("forget_choice")
def test_the_processor_decides_and_the_log_says_how(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "_processor_flags", lambda: {"avx2", "amx_tile"})
    with caplog.at_level(logging.INFO):
        assert tiles() is Tiles.NONE
        assert tiles() is Tiles.NONE

    assert [record.message for record in caplog.records] == [
        "AMX: off; the processor lacks amx_bf16, amx_int8, avx512_bf16, avx512_vnni"
    ]


@pytest.mark.usefixtures("forget_choice")
def test_a_system_that_refuses_tiles_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "_processor_flags", lambda: module.NEEDED)
    monkeypatch.setattr(module, "ARCH_REQ_XCOMP_PERM", -1)
    with caplog.at_level(logging.INFO):
        assert tiles() is Tiles.NONE

    assert "AMX: off; the operating system refuses it: Invalid argument" in caplog.text


@pytest.mark.usefixtures("forget_choice")
@pytest.mark.parametrize(("value", "registers"), [("off", Tiles.NONE), ("emulated", Tiles.EMULATED)])
def test_a_variable_overrides_the_processor(monkeypatch: pytest.MonkeyPatch, value: str, registers: Tiles) -> None:
    monkeypatch.setenv(VARIABLE, value)

    assert tiles() is registers


@pytest.mark.usefixtures("forget_choice")
def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "yes")

    with pytest.raises(ValueError, match="MANTA_AMX must be auto, off or emulated, not 'yes'"):
        tiles()
