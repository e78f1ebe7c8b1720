"""The bench runs from a case to README's table, and prints no ratio of two different computations."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import types
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bench import __main__ as bench
from bench import against, data, density, memory, mixtures, partitions, peers, shapes, table, transport, works
from bench.cases import CASES, Case, select, shrink
from bench.peer_tests import __main__ as peer_tests
from bench.peer_tests import page
from bench.peer_tests.reasons import CATEGORIES, REASONS, SPARSE, Reason
from bench.peers import CLUSTPY, FAISS, GMMX, INTELEX, LIGHTLY, LOOP, OTT, POT, POT_LOG, SKLEARN, TORCH, Answer
from bench.provenance import ROOT
from bench.records import append, published, read
from bench.timing import alternate
from bench.trials import __main__ as trials
from bench.trials import kinds, methods
from bench.unsupervised import clustergan
from bench.works import WORKS, Work, compare, disagreement, title
from jaxcluster.types import Status

TINY = Case("tiny", "lloyd", n=400, d=6, k=5, steps=4)
PROVENANCE = {"date", "quick", "commit", "dirty", "versions", "python", "platform", "device", "cpu", "cores", "dtype"}


distributions = cache(importlib.metadata.packages_distributions)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Of what the tests time nothing is read, and to collect what their process holds takes a second.

    The version of each peer is looked up among the files of all that is installed, which are read once.
    """
    monkeypatch.setattr("bench.timing.SETTLE", 0)
    monkeypatch.setattr("bench.timing.gc", types.SimpleNamespace(collect=lambda: None))
    monkeypatch.setattr("importlib.metadata.packages_distributions", distributions)


@pytest.fixture
def tiny_cases(monkeypatch):
    """What ``--quick`` leaves of a case shows as much at the size of `TINY`, and the flows of a peer take less."""

    def tiny(case):
        case = shrink(case)
        return replace(case, n=min(case.n, TINY.n), d=min(case.d, TINY.d), k=min(case.k, TINY.k))

    monkeypatch.setattr(bench, "shrink", tiny)


def record(case="lloyd", *, date="2025-01-01", median=0.5, peer=1.0, failure=None, quick=False, **changes):
    """A record as the runner writes it, with one peer that took ``peer`` seconds."""
    ratio = None if failure else peer / median
    made = {"date": date, "quick": quick, "commit": "0123456789abcdef", "dirty": False, "platform": "cpu"}
    made |= {"device": "Chip", "cores": 2, "dtype": "float32"}
    made |= {"versions": {"jax": "0.10", "numpy": "2.0", "scikit-learn": "1.7"}}
    return {
        "case": case,
        "title": f"The {case} case",
        "data": "generated",
        "ours": {"first_call_s": 2.0, "median_s": median},
        "peers": {SKLEARN: {"median_s": None if failure else peer, "ratio": ratio, "disagreement": failure}},
        "ratio": ratio,
        "target": 1.5,
        "provenance": made,
    } | changes


@pytest.mark.usefixtures("tiny_cases")
def test_a_case_runs_from_the_command_line_to_its_record(tmp_path, capsys):
    out = tmp_path / "deep" / "run.jsonl"
    assert bench.main(["--quick", "--only", "lloyd-k32", "small", "--repeats", "2", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [entry["case"] for entry in records] == ["lloyd-k32", "small"]
    for entry in records:
        ours, theirs = entry["ours"], entry["peers"][SKLEARN]
        assert len(ours["seconds"]) == len(theirs["seconds"]) == 2
        assert min(ours["seconds"]) == ours["min_s"] > 0
        assert ours["first_call_s"] > ours["min_s"]
        assert theirs["ratio"] == pytest.approx(theirs["median_s"] / ours["median_s"])
        assert theirs["value"] == pytest.approx(ours["value"], rel=1e-3)
        assert theirs["labels_differ"] <= 1e-3
        assert entry["ratio"] == min(peer["ratio"] for peer in entry["peers"].values())
        assert set(entry["provenance"]) >= PROVENANCE
        assert entry["provenance"]["quick"]
        assert {"jax", "jaxlib", "numpy", SKLEARN} <= set(entry["provenance"]["versions"])
    assert records[0]["ours"]["steps"] == records[0]["peers"][SKLEARN]["steps"] == 4
    printed = capsys.readouterr().out
    assert all(entry["title"] in printed for entry in records)


@pytest.mark.usefixtures("tiny_cases")
def test_both_forms_of_a_mixture_take_the_same_steps_on_every_side(tmp_path):
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--only", "em-full-16", "em-diag-64", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [entry["title"][-4:] for entry in records] == ["full", "diag"]
    for entry in records:
        assert SKLEARN in entry["peers"]
        for side in (entry["ours"], *entry["peers"].values()):
            assert side["steps"] == 4
            assert side["value"] == pytest.approx(entry["ours"]["value"], rel=1e-5)


@pytest.mark.usefixtures("tiny_cases")
def test_a_peer_that_computes_something_else_gets_no_ratio(monkeypatch, capsys):
    def other(x, start, steps):
        return lambda: peers.sklearn_lloyd(x, start, steps)()._replace(value=1.0)

    monkeypatch.setattr(peers, "LLOYD", {SKLEARN: other})
    assert bench.main(["--quick", "--only", "lloyd-k32"]) == 1
    printed = capsys.readouterr().out
    assert "disagrees" in printed
    assert "×)" not in printed


def test_a_missing_peer_is_named_and_left_out(monkeypatch, capsys):
    monkeypatch.setattr(peers, "MODULES", {SKLEARN: "sklearn", INTELEX: "no_a", FAISS: "no_b", TORCH: "c"})
    monkeypatch.setattr(bench, "select", lambda patterns, platform: [TINY])
    assert bench.main(["--quick"]) == 0
    seen = capsys.readouterr()
    assert f"{INTELEX} is not installed" in seen.err
    assert f"{FAISS} is not installed" in seen.err
    assert TORCH not in seen.err + seen.out
    assert SKLEARN in seen.out


def test_an_unknown_case_is_answered_with_the_known_ones(capsys):
    assert bench.main(["--only", "llyod"]) == 2
    assert "lloyd-k32" in capsys.readouterr().err


def test_every_case_is_well_formed():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert title(case)
        assert shrink(case).n <= 1_000
    assert {case.work for case in CASES} == set(WORKS)
    assert [case.name for case in select(["lloyd-1m-*"], "gpu")] == ["lloyd-1m-k256", "lloyd-1m-k1024"]
    with pytest.raises(ValueError, match="no case matches"):
        select(["lloyd-1m-*"], "cpu")


@pytest.mark.parametrize(("name", "module"), [(FAISS, "faiss"), (INTELEX, "sklearnex"), (TORCH, "torch")])
def test_the_optional_peers_compute_what_scikit_learn_does(name, module):
    pytest.importorskip(module)
    x, _ = data.blobs(TINY)
    start = data.starting_rows(x, TINY.k)
    theirs = peers.LLOYD[name](x, start, TINY.steps)()
    assert disagreement(peers.sklearn_lloyd(x, start, TINY.steps)(), theirs, 1e-3) is None


def test_peers_are_looked_for_where_they_belong(monkeypatch):
    monkeypatch.setattr(peers, "MODULES", dict.fromkeys(peers.MODULES, "no_such_module"))
    everywhere, accelerators = [GMMX, OTT, CLUSTPY, LOOP, LIGHTLY], [TORCH]
    known = list(peers.MODULES)
    assert peers.missing("cpu") == [name for name in known if name not in accelerators]
    assert peers.missing("cpu", cpu_peers=False) == []
    assert peers.missing("gpu") == known
    assert peers.missing("gpu", cpu_peers=False) == [name for name in known if name in everywhere + accelerators]


def test_peers_of_transport_move_the_rows_at_one_cost():
    case = Case("tiny", "sinkhorn", n=60, d=3, eps=0.5, steps=40)
    pytest.importorskip("ot")
    x, y = transport.clouds(case)
    log, kernel = (transport.PEERS[name](x, y, case.eps, case.steps)() for name in (POT_LOG, POT))
    assert disagreement(log, kernel, 1e-4) is None
    pytest.importorskip("ott")
    assert disagreement(log, transport.ott(x, y, case.eps, case.steps)(), 1e-4) is None


def test_peers_of_partitions_find_what_can_be_found():
    x, _ = data.blobs(TINY)
    pytest.importorskip("k_means_constrained")
    flow = partitions.min_cost_flow(x, data.starting_rows(x, TINY.k), (80, 80), 20)()
    assert flow.value > peers.sklearn_lloyd(x, data.starting_rows(x, TINY.k), 20)().value
    pytest.importorskip("kmedoids")
    fit = partitions.rust_fasterpam(x, partitions.starting_medoids(len(x), TINY.k))()
    assert np.unique(fit.labels).size == TINY.k


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_gmmx_computes_what_scikit_learn_does(covariance):
    pytest.importorskip("gmmx")
    x, _ = data.blobs(TINY)
    first = mixtures.start(x, TINY.k, covariance)
    theirs = mixtures.gmmx_em(x, first, covariance, TINY.steps)()
    assert disagreement(mixtures.sklearn_em(x, first, covariance, TINY.steps)(), theirs, 1e-5) is None
    assert disagreement(mixtures.sklearn_em(x, first, covariance, TINY.steps - 1)(), theirs, 1e-5) is not None


def test_clusters_are_numbered_alike_on_every_side():
    numbered = density.answer(np.array([5, -1, 5, 2, 2, 7]))
    assert numbered.value == 3
    np.testing.assert_array_equal(numbered.labels, [0, -1, 0, 1, 1, 2])
    np.testing.assert_array_equal(density.answer(np.array([1, 0, 0])).labels, [0, 1, 1])
    assert density.answer(np.full(3, -1)).value == 0


@pytest.mark.usefixtures("tiny_cases")
@pytest.mark.parametrize("name", ["dbscan-2", "hdbscan-20k", "optics", "spectral-5k"])
def test_methods_by_density_and_graphs_agree_with_their_peers(name, tmp_path):
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--only", name, "--out", str(out)]) == 0
    (entry,) = map(json.loads, out.read_text().splitlines())
    assert entry["peers"][SKLEARN]["disagreement"] is None


@pytest.mark.usefixtures("tiny_cases")
def test_partitions_and_transport_agree_with_their_peers(tmp_path):
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--only", "kmedoids-k10", "balanced", "sinkhorn", "--out", str(out)]) == 0
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert [entry["case"] for entry in entries] == ["kmedoids-k10", "sinkhorn", "balanced"]
    for entry in entries:
        assert math.isfinite(entry["ours"]["value"])
        assert {peer["disagreement"] for peer in entry["peers"].values()} <= {None}


def test_networks_are_trained_for_as_many_steps_as_the_case_says():
    case = Case("tiny", "vade", n=400, d=16, k=4, steps=2, batch=40, hidden=(16,))
    x, _ = data.pixels(case)
    assert x.min() >= 0
    assert x.max() <= 1
    found = WORKS["vade"].build(case, {}, None).ours()
    assert found.steps == 2 * case.steps * case.n // case.batch
    assert math.isfinite(found.value)
    wrong = Answer(found.value, steps=found.steps - 1)
    assert "iterations" in disagreement(found, wrong, 0.01)


@pytest.mark.parametrize("name", ["clustergan", "swav", "deepcluster"])
def test_networks_without_labels_are_trained_for_the_steps_that_the_loops_take(name):
    """Of ClusterGAN a step takes five batches of its critic, and of any other one."""
    case = Case("tiny", name, n=200, d=9, k=2, steps=2, batch=20, hidden=(8,))
    found = WORKS[name].build(case, {}, None)
    assert found.merit
    assert not found.peers
    answer = found.ours()
    assert answer.steps == 2 * (2 if name == "clustergan" else 10)
    assert -1 <= answer.value <= 1
    if name == "clustergan":
        assert clustergan.steps(case) == answer.steps


def test_loops_of_pytorch_are_imported_where_it_is_installed(monkeypatch):
    asked = []
    loops = types.SimpleNamespace(loop=lambda case, x, truth: lambda: Answer(1.0, steps=len(x)))
    monkeypatch.setattr(works.importlib, "import_module", lambda name: asked.append(name) or loops)
    case = Case("tiny", "swav", n=200, d=9, k=2, batch=20, hidden=(8,))
    assert WORKS["swav"].build(case, {LOOP: ""}, None).peers == {}
    assert asked == []
    assert WORKS["swav"].build(case, {LIGHTLY: ""}, None).peers[LIGHTLY]() == Answer(1.0, steps=200)
    assert asked == ["bench.unsupervised.torch_swav"]


def test_a_peer_that_would_take_minutes_is_left_out():
    case = next(case for case in CASES if case.name == "hdbscan-3")
    assert SKLEARN in case.without
    assert SKLEARN not in WORKS["hdbscan"].build(shrink(case), {SKLEARN: ""}, None).peers


def test_shapes_are_measured_at_the_best_of_their_settings(tmp_path, monkeypatch, capsys):
    chosen = {name: shapes.METHODS[name] for name in ("k-means", "DBSCAN")}
    monkeypatch.setattr(shapes, "METHODS", chosen)
    x = np.r_[np.arange(40.0), 100 + 2 * np.arange(40.0)][:, None] * np.ones(2)
    truths = np.array([np.repeat([1, 2], 40), np.repeat([1, 0], 40)], np.int16)
    np.savez(tmp_path / "benchmark_suite.npz", **{"lines.X": x.astype(np.float32), "lines.y": truths})
    out = tmp_path / "run.jsonl"
    assert shapes.main(["--data", str(tmp_path), "--only", "lines", "--out", str(out)]) == 0
    (entry,) = map(json.loads, out.read_text().splitlines())
    assert entry["methods"]["DBSCAN"]["ari"] == 1
    assert entry["methods"]["DBSCAN"]["labels_differ"] == 0
    assert entry["methods"]["DBSCAN"]["settings"]["eps"] > 0
    assert "| lines | 80×2 |" in capsys.readouterr().out
    assert shapes.Shape(x, truths[1:]).score(np.r_[np.zeros(40), np.arange(40)]) == 1


def test_images_are_reduced_to_the_columns_of_a_case(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x_train=images[:30], x_test=images[30:])
    whole, reduced = (Case("images", "em", n=40, d=d, data="pictures") for d in (16, 3))
    pixels, source = data.rows(whole, tmp_path)
    assert source == "pictures"
    np.testing.assert_array_equal(pixels, images.reshape(40, 16).astype(np.float32) / 255)
    components, source = data.rows(reduced, tmp_path)
    assert (source, components.shape, components.dtype) == ("pictures", (40, 3), np.float32)
    assert data.rows(whole, None)[1] == "generated"


def test_memory_grows_by_what_a_call_holds_at_its_peak():
    if not memory.possible("cpu"):
        pytest.skip("Linux only")
    assert memory.growth(lambda: np.ones(10_000_000)) == pytest.approx(80e6, rel=0.1)
    assert memory.growth(lambda: None) < 8e6
    assert not memory.possible("gpu")


def test_memory_is_measured_in_a_process_for_each_side(tmp_path, capsys, monkeypatch):
    if not memory.possible("cpu"):
        pytest.skip("Linux only")
    monkeypatch.setattr(peers, "MODULES", {SKLEARN: "sklearn"})
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--memory", "--only", "ari", "--out", str(out)]) == 0
    entry = json.loads(out.read_text())
    assert entry["ours"]["first_call_bytes"] > 0
    assert set(entry["peers"]) == {SKLEARN}
    assert entry["provenance"]["quick"]
    printed = capsys.readouterr().out
    assert f"| {entry['title']} |" in printed
    assert f"scikit-learn {table.size(entry['peers'][SKLEARN]['peak_bytes'])} |" in printed
    monkeypatch.setattr(memory, "possible", lambda platform: False)
    assert bench.main(["--memory"]) == 2


def test_a_commit_is_timed_in_turns_with_the_checkout(monkeypatch, capsys):
    calls = []

    @contextmanager
    def side(folder, case, data):
        seconds = 1.2 if folder == ROOT else 1.0

        def call():
            calls.append(folder == ROOT)
            return {"seconds": seconds, "value": 3.0}

        yield call

    monkeypatch.setattr(against, "side", side)
    # Slower than the limit, so the exit is 1.
    assert against.main(["HEAD", "--quick", "--only", "ari", "nmi", "--repeats", "2"]) == 1
    assert calls == 2 * [True, False, True, False, False, True]
    assert "| ari | 1.0000 | 1.2000 | +20.0% | 1.00 | 1.20 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        against.main(["no-such-commit"])


def test_disagreement_says_what_differs():
    ours = Answer(10.0, np.arange(1000), 5)
    assert disagreement(ours, Answer(10.001, np.arange(1000), 5), 1e-3) is None
    assert "theirs 10.1" in disagreement(ours, Answer(10.1, np.arange(1000), 5), 1e-3)
    assert "6" in disagreement(ours, Answer(10.0, np.arange(1000), 6), 1e-3)
    assert "0.20%" in disagreement(ours, Answer(10.0, np.r_[1, 0, np.arange(2, 1000)], 5), 1e-3)
    assert disagreement(Answer(math.nan), Answer(math.nan), 1e-3) is not None


def test_a_probe_is_where_labels_are_compared():
    near, far = Answer(10.0, np.zeros(100), 1), Answer(10.0, np.ones(100), 1)
    agreeing = Work(lambda: near, {"peer": lambda: near}, probe=None)
    whole = Work(lambda: near, {"peer": lambda: far}, probe=agreeing)
    assert compare(whole, near, {"peer": far}) == {"peer": {"disagreement": None, "labels_differ": 0.0}}
    assert "9" in compare(whole, near, {"peer": far._replace(value=9.0)})["peer"]["disagreement"]
    parted = whole._replace(probe=Work(lambda: near, {"peer": lambda: far}))
    assert "100.00%" in compare(parted, near, {"peer": near})["peer"]["disagreement"]


def test_every_side_goes_first_in_turn():
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_the_table_shows_the_latest_full_run_of_each_case():
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
    return f"<!-- {block}:start -->\nold\n<!-- {block}:end -->"


def test_a_failure_of_a_peers_test_needs_a_reason_for_its_error(monkeypatch):
    reason = Reason("cluster/test_optics.py::test_a[*csr_*", SPARSE, "Not yet.", "Sparse data")
    monkeypatch.setattr(peer_tests, "REASONS", (reason, reason._replace(tests="cluster/test_optics.py::test_gone")))
    outcomes = [
        {
            "test": "test_a[csr_array-1]",
            "outcome": "failed",
            "error": "TypeError: Sparse data was passed",
            "ours": True,
        },
        {"test": "test_a[csr_array-2]", "outcome": "failed", "error": "TypeError: no such key", "ours": True},
        {"test": "test_a[csr_array-3]", "outcome": "passed", "error": "", "ours": True},
        {"test": "test_b", "outcome": "failed", "error": "TypeError: Sparse data was passed", "ours": True},
        {"test": "test_c", "outcome": "passed", "error": "", "ours": False},
        {"test": "test_d", "outcome": "skipped", "error": "", "ours": False},
    ]
    summed = peer_tests.summary("cluster/test_optics.py", outcomes)
    assert [summed[key] for key in ("tests", "passed", "failed", "skipped", "not_ours")] == [4, 1, 3, 1, 1]
    assert [name.rpartition("::")[2] for name in peer_tests.without_reason(summed)] == ["test_a[csr_array-2]", "test_b"]
    stale = peer_tests.stale("cluster/test_optics.py", outcomes)
    assert stale == [
        "cluster/test_optics.py::test_a[csr_array-3]",
        "cluster/test_optics.py::test_gone (no such test)",
    ]


def test_every_reason_is_of_a_file_that_is_run():
    assert len({(reason.tests, reason.error) for reason in REASONS}) == len(REASONS)
    for reason in REASONS:
        assert reason.tests.partition("::")[0] in peer_tests.FILES
        assert reason.category in CATEGORIES
        assert reason.sentence.endswith(".")
        assert reason.error


def test_scikit_learns_tests_run_on_our_classes(capsys):
    asked = ["--only", "testsupervised", "--tests", "perfect or beta"]
    assert peer_tests.main(asked) == 0
    assert re.search(r"([1-9]\d*) of \1 pass, 0 fail", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        peer_tests.main(["--only", "no_such_file"])


def test_the_docs_show_the_committed_records_of_scikit_learns_tests():
    assert page.PAGE.read_text() == page.page(read(peer_tests.FOLDER))


def test_a_trial_is_right_or_said_so_or_wrong():
    (case,) = [case for case in kinds.offsets() if case.name == "four samples of one column + 1e9"]
    method = methods.METHODS["kmeans"]
    assert kinds.attempt(method, case) == ("right", "")

    class Guess:
        def __init__(self, status):
            self.status_ = status

        def fit(self, x):
            self.labels_ = np.zeros(len(x), int)

    for status, verdict in ((Status.PRECISION, "said"), (Status.CONVERGED, "wrong")):
        guess = method._replace(make=lambda problem, status=status: Guess(status))
        assert kinds.attempt(guess, case) == (verdict, "2 of 4 labels are not the oracle's: 4 for 2/2")
    broken = method._replace(make=lambda problem: None)
    assert kinds.attempt(broken, case)[0] == "wrong"


def test_trials_are_chosen_by_kind_method_and_case(capsys):
    assert trials.main(["--list", "--only", "offset", "--method", "kmeans", "--case", "four*"]) == 0
    listed = capsys.readouterr().out.split("\n")
    assert "offset | kmeans | four samples of one column + 1e9" in listed
    assert trials.main(["--only", "offset", "--method", "kmeans", "--case", "four*"]) == 0
    assert "| offset | 1 | " in capsys.readouterr().out


def test_the_table_is_written_between_its_markers(tmp_path, capsys):
    readme, tables, results = tmp_path / "README.md", tmp_path / "bench" / "README.md", tmp_path / "results"
    results.mkdir()
    tables.parent.mkdir()
    arguments = ["--root", str(tmp_path), "--results", str(results)]
    for path, blocks in ((readme, ["trials"]), (tables, ["bench", "shapes", "mnist", "images"])):
        path.write_text("\n\n".join(["# Title", *map(marked, blocks), "The end.\n"]))
    append(results / "run.jsonl", record(median=0.05, peer=0.1))
    seen = {"k-means": {"ari": 0.2}, "DBSCAN": {"ari": 0.996}, "HDBSCAN": {"ari": 1.0}}
    append(results / "shapes" / "run.jsonl", record("rings") | {"n": 1_500, "d": 2, "methods": seen})
    count = {"cases": 3, "methods": 2, "trials": 1_006, "right": 1_003, "said": 1, "wrong": 2}
    append(results / "trials" / "run.jsonl", record("trials") | {"kinds": {"offset": count, "units": count}})
    assert table.main([*arguments, "--check"]) == 1
    assert "make bench-table" in capsys.readouterr().err
    assert table.main(arguments) == 0
    assert table.main([*arguments, "--check"]) == 0
    text = tables.read_text()
    assert "| 50.0 ms | scikit-learn 0.100 s (2.00×) | 2.00× | ≥ 1.5 | 2.00 s |" in text
    assert "| rings | 1,500×2 | 0.20 | **1.00** | **1.00** |" in text
    assert "old" not in text
    text = readme.read_text()
    assert "| offset | 3 | 2 | 1,006 | 1,003 | 1 | 2 |" in text
    assert "| All |  |  | 2,012 | 2,006 | 2 | 4 |" in text
    assert "old" not in text
    assert text.startswith("# Title\n")
    assert text.endswith("The end.\n")
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        table.main(arguments)


def test_the_readme_shows_the_committed_results():
    assert table.main(["--check"]) == 0
