"""The tables of the bench: the latest record of each case, on the pages that show them."""

from __future__ import annotations

import pytest
from bench_records import record

from bench import growth, table
from bench.peers import GMMX, SKLEARN
from bench.records import append, published


def test_table_shows_the_latest_run_of_each_case():
    records = [
        record("one", date="2025-01-02", peer=0.6),
        record("one", date="2025-01-01"),
        record("one", date="2025-01-03", quick=True),
        record("two", failure="ours 1, theirs 2"),
    ]
    shown = table.sections(published(sorted(records, key=lambda entry: entry["provenance"]["date"])))
    assert "**Chip, 2 cores** — float32; JAX 0.10, NumPy 2.0, scikit-learn 1.7; commit 0123456789;" in shown
    assert "| The one case | 0.500 s | scikit-learn 0.600 s (1.20×) | 1.20× | ≥ 1.5 (not met) | 2.00 s |" in shown
    assert "| The two case | 0.500 s | scikit-learn **disagrees: ours 1, theirs 2** | — | ≥ 1.5 (not measured)" in shown
    assert len(shown.splitlines()) == 6


def test_a_target_by_peer_is_told_of_each():
    target = {SKLEARN: 2, GMMX: 3}
    peers = {
        SKLEARN: {"median_s": 1.0, "ratio": 2.0, "disagreement": None},
        GMMX: {"median_s": 1.4, "ratio": 2.8, "disagreement": None},
    }
    shown = table.markdown([record(peers=peers, target=target), record(target=target, peer=0.5)])
    assert "| 2.00× | scikit-learn ≥ 2; gmmx ≥ 3 (not met) |" in shown
    assert "| 1.00× | scikit-learn ≥ 2 (not met); gmmx ≥ 3 (not measured) |" in shown


def test_every_machine_has_its_own_tables():
    other = record()["provenance"] | {"device": "Other chip", "commit": "fedcba9876543210"}
    sized = {"ours": {"peak_bytes": 2_000_000}, "peers": {SKLEARN: {"peak_bytes": 1_234_000_000}}}
    times = [record("one"), record("one", provenance=other), record("two", provenance=other)]
    shown = table.sections(published(times), published([record("one", provenance=other, **sized)]))
    first, second = shown.split("**Other chip, 2 cores**")
    assert "**Chip, 2 cores**" in first
    assert "fedcba" not in first
    assert "memory" not in first
    assert second.count("| The one case |") == 2
    assert "| The one case | 2 MB | scikit-learn 1,234 MB |" in second


def marked(block):
    return f"<!-- {block}:start -->\nstale\n<!-- {block}:end -->"


def test_the_table_is_written_between_its_markers(tmp_path, capsys):
    readme, tables, results = tmp_path / "README.md", tmp_path / "bench" / "README.md", tmp_path / "results"
    results.mkdir()
    tables.parent.mkdir()
    arguments = ["--root", str(tmp_path), "--results", str(results)]
    streams, devices = tmp_path / "docs" / "streaming.md", tmp_path / "docs" / "devices.md"
    streams.parent.mkdir()
    blocks_of = {readme: ["trials"], tables: ["bench", "fresh", "growth", "shapes", "deep", "images"]}
    for path, blocks in (blocks_of | {streams: ["streams"], devices: ["scaling"]}).items():
        path.write_text("\n\n".join(["# Title", *map(marked, blocks), "The end.\n"]))
    append(results / "run.jsonl", record(median=0.05, peer=0.1))
    scores = {"k-means": {"ari": 0.2}, "DBSCAN": {"ari": 0.996}, "HDBSCAN": {"ari": 1.0}}
    append(results / "shapes" / "run.jsonl", record("rings") | {"n": 1_500, "d": 2, "methods": scores})
    fresh = {"medians": {"scikit-learn": 1.0, "warm": 1.5, "cold": 3.0}, "ratios": {"warm": 1.5, "cold": 3.0}}
    append(results / "fresh" / "run.jsonl", record("kmeans") | {"n": 1_000, "d": 10, **fresh})
    count = {"cases": 3, "methods": 2, "trials": 1_006, "right": 1_003, "said": 1, "wrong": 2}
    append(results / "trials" / "run.jsonl", record("trials") | {"kinds": {"offset": count, "units": count}})
    read = {name: {"step_s": step, "peak_bytes": 3e8} for name, step in (("memory", 1), ("npy", 2), ("parquet", 4))}
    append(results / "streams" / "run.jsonl", record("kmeans-2000000x32") | {"k": 100, **read})
    steps = {"step_s": 0.3, "planned_step_s": 0.2, "collectives": ["all-reduce"]}
    append(results / "scaling" / "run.jsonl", record("kmeans-400000x32-2d1p") | steps)
    assert table.main([*arguments, "--check"]) == 1
    assert "make bench-table" in capsys.readouterr().err
    assert table.main(arguments) == 0
    assert table.main([*arguments, "--check"]) == 0
    text = tables.read_text()
    assert "| 50.0 ms | scikit-learn 0.100 s (2.00×) | 2.00× | ≥ 1.5 | 2.00 s |" in text
    assert "| rings | 1,500×2 | 0.20 | **1.00** | **1.00** |" in text
    assert "| kmeans | 1,000×10 | 1.00 | 1.50 | 3.00 | 1.50 | 3.00 |" in text
    assert "stale" not in text
    assert "| kmeans-2000000x32, k = 100 | Parquet files | 500,000 | 0.25× | 300 MB |" in streams.read_text()
    assert "| 2 | 1 | 400,000 | 0.300 s | 0.200 s | 1.50 | 1 all-reduce |" in devices.read_text()
    text = readme.read_text()
    assert "| offset | 3 | 2 | 1,006 | 1,003 | 1 | 2 |" in text
    assert "| All |  |  | 2,012 | 2,006 | 2 | 4 |" in text
    assert "stale" not in text
    assert text.startswith("# Title\n")
    assert text.endswith("The end.\n")
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        table.main(arguments)


def test_the_readme_shows_the_committed_results():
    assert table.main(["--check"]) == 0


def test_slopes_and_the_picture_of_growth(tmp_path, capsys):
    assert growth.slope({10: 5.0, 100: 1.0, 1_000: 10.0, 10_000: 100.0}) == pytest.approx(1)
    assert growth.slope({10: 1.0, 100: 100.0}) == pytest.approx(2)
    assert growth.slope({10: 1.0}) is None
    assert growth.main(["--quick", "--only", "silhouette*"]) == 0
    assert "| silhouette, samples | 512 to 1,024 |" in capsys.readouterr().out
    measured = growth.measure(growth.tiny(growth.FAMILIES[-2]), {})
    growth.draw([measured], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
