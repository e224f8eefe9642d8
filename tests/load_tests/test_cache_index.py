"""The measurement of the semantic index, on a size that takes a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from load_tests.cache_index import CANDIDATES, Drawn, main


def test_it_measures_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    assert main(["--entries", "700", "--queries", "20", "--dimensions", "48", "--json", str(out)]) == 0
    (run,) = json.loads(out.read_text())["runs"]
    assert run["entries"] == 700
    assert run["recall_at_1"] == run["recall_at_5"] == 1.0
    assert 0 < run["search_cpu_ms"]["p50"] <= run["search_cpu_ms"]["p99"]
    assert "700 entries: rebuilt from Redis" in capsys.readouterr().out


def test_the_truth_is_that_of_all_cosines() -> None:
    drawn = Drawn(3000, 48)  # more than a batch
    vectors = np.concatenate([each for _, each in drawn.batches()])
    asked, truth = drawn.queries(20)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(truth[:, 0], np.argmax(asked @ vectors.T, axis=1))
    expected = [set(each) for each in np.argsort(-(asked @ vectors.T), axis=1)[:, :CANDIDATES].tolist()]
    assert sum(len(set(found) & best) for found, best in zip(truth.tolist(), expected, strict=True)) >= 98
