"""``python -m k8s.monitoring`` (``make k8s``): writes Prometheus' rules and Grafana's dashboards into k8s/base."""

from __future__ import annotations

from pathlib import Path

from k8s.monitoring.written_files import ROOT, written_files


def main() -> None:
    """Writes the files and prints their names."""
    for path, text in written_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(Path(path).relative_to(ROOT))


if __name__ == "__main__":
    main()
