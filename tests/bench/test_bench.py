"""The bench runs a case on every side, and prints no ratio of two different computations."""

from __future__ import annotations

import json
import math
import types
from contextlib import contextmanager

import numpy as np
import pytest
from bench_records import TINY

from bench import __main__ as bench
from bench import against, data, density, fresh, gpu, memory, mixtures, partitions, peers, table, transport, works
from bench.cases import CASES, Case, select, shrink
from bench.peers import CLUSTPY, FAISS, GMMX, INTELEX, LIGHTLY, LOOP, OTT, POT, POT_LOG, SKLEARN, TORCH, Answer
from bench.provenance import ROOT
from bench.timing import alternate
from bench.unsupervised import clustergan
from bench.works import WORKS, Work, compare, disagreement, title

PROVENANCE = {"date", "quick", "commit", "dirty", "versions", "python", "platform", "device", "cpu", "cores", "dtype"}


@pytest.mark.usefixtures("tiny_cases")
def test_case_runs_from_command_line_to_record(tmp_path, capsys):
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
def test_a_chip_is_measured_until_its_time_is_over(tmp_path, capsys):
    chosen = ["--only", "ari", "--methods", "metric:davies*", "--out", str(tmp_path)]
    assert gpu.main(["--quick", *chosen]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (written,) = (tmp_path / "gpu").glob("*.jsonl")
    parts = [json.loads(line)["part"] for line in written.read_text().splitlines()]
    assert parts == ["ceilings"] * 4 + ["correctness"] * len(gpu.SAMPLES)
    assert [entry["part"] for entry in printed] == [*parts, "times"]
    assert all(entry["verdict"] == "right" for entry in printed if "verdict" in entry)
    over = gpu.Session(1e-9, None, {"platform": "cpu", "versions": {}})
    gpu.compare_with_oracles(over, ["*"])
    gpu.time_cases(over, iter(CASES), None, cpu_peers=True)
    assert over.counts == {}


@pytest.mark.usefixtures("tiny_cases")
def test_both_forms_of_a_mixture_take_the_same_steps(tmp_path):
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
def test_peer_of_another_problem_gets_no_ratio(monkeypatch, capsys):
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
    output = capsys.readouterr()
    assert f"{INTELEX} is not installed" in output.err
    assert f"{FAISS} is not installed" in output.err
    assert TORCH not in output.err + output.out
    assert SKLEARN in output.out


def test_unknown_case_is_answered_with_known_ones(capsys):
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
def test_optional_peers_agree_with_scikit_learn(name, module):
    pytest.importorskip(module)
    x, _ = data.blobs(TINY)
    start = data.starting_rows(x, TINY.k)
    theirs = peers.LLOYD[name](x, start, TINY.steps)()
    assert disagreement(peers.sklearn_lloyd(x, start, TINY.steps)(), theirs, 1e-3) is None


def test_peers_are_looked_for_where_they_belong(monkeypatch):
    monkeypatch.setattr(peers, "MODULES", dict.fromkeys(peers.MODULES, "no_such_module"))
    everywhere, accelerators = [GMMX, OTT, CLUSTPY, LOOP, LIGHTLY], [TORCH]
    names = list(peers.MODULES)
    assert peers.missing("cpu") == [name for name in names if name not in accelerators]
    assert peers.missing("cpu", cpu_peers=False) == []
    assert peers.missing("gpu") == names
    assert peers.missing("gpu", cpu_peers=False) == [name for name in names if name in everywhere + accelerators]


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
def test_density_and_graph_methods_agree_with_peers(name, tmp_path):
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--only", name, "--out", str(out)]) == 0
    (entry,) = map(json.loads, out.read_text().splitlines())
    assert entry["peers"][SKLEARN]["disagreement"] is None


@pytest.mark.usefixtures("tiny_cases")
def test_partitions_and_transport_agree_with_peers(tmp_path):
    out = tmp_path / "run.jsonl"
    assert bench.main(["--quick", "--only", "kmedoids-k10", "balanced", "sinkhorn", "--out", str(out)]) == 0
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert [entry["case"] for entry in entries] == ["kmedoids-k10", "sinkhorn", "balanced"]
    for entry in entries:
        assert math.isfinite(entry["ours"]["value"])
        assert {peer["disagreement"] for peer in entry["peers"].values()} <= {None}


def test_networks_are_trained_for_the_cases_steps():
    case = Case("tiny", "vade", n=400, d=16, k=4, steps=2, batch=40, hidden=(16,))
    x, _ = data.pixels(case)
    assert x.min() >= 0
    assert x.max() <= 1
    answer = WORKS["vade"].build(case, {}, None).ours()
    assert answer.steps == 2 * case.steps * case.n // case.batch
    assert math.isfinite(answer.value)
    wrong = Answer(answer.value, steps=answer.steps - 1)
    assert "iterations" in disagreement(answer, wrong, 0.01)


@pytest.mark.parametrize("name", ["clustergan", "swav", "deepcluster"])
def test_networks_without_labels_take_the_loops_steps(name):
    """A step of ClusterGAN takes five batches for its critic; a step of the others takes one batch."""
    case = Case("tiny", name, n=200, d=9, k=2, steps=2, batch=20, hidden=(8,))
    work = WORKS[name].build(case, {}, None)
    assert work.merit
    assert not work.peers
    answer = work.ours()
    assert answer.steps == 2 * (2 if name == "clustergan" else 10)
    assert -1 <= answer.value <= 1
    if name == "clustergan":
        assert clustergan.steps(case) == answer.steps


def test_pytorch_loops_are_imported_if_installed(monkeypatch):
    imports = []
    loops = types.SimpleNamespace(loop=lambda case, x, truth: lambda: Answer(1.0, steps=len(x)))
    monkeypatch.setattr(works.importlib, "import_module", lambda name: imports.append(name) or loops)
    case = Case("tiny", "swav", n=200, d=9, k=2, batch=20, hidden=(8,))
    assert WORKS["swav"].build(case, {LOOP: ""}, None).peers == {}
    assert imports == []
    assert WORKS["swav"].build(case, {LIGHTLY: ""}, None).peers[LIGHTLY]() == Answer(1.0, steps=200)
    assert imports == ["bench.unsupervised.torch_swav"]


def test_a_peer_that_would_take_minutes_is_left_out():
    case = next(case for case in CASES if case.name == "hdbscan-3")
    assert SKLEARN in case.without
    assert SKLEARN not in WORKS["hdbscan"].build(shrink(case), {SKLEARN: ""}, None).peers


def test_images_are_reduced_to_the_columns_of_a_case(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", x_train=images[:30], x_test=images[30:])
    full_size, reduced = (Case("images", "em", n=40, d=d, data="pictures") for d in (16, 3))
    pixels, source = data.rows(full_size, tmp_path)
    assert source == "pictures"
    np.testing.assert_array_equal(pixels, images.reshape(40, 16).astype(np.float32) / 255)
    components, source = data.rows(reduced, tmp_path)
    assert (source, components.shape, components.dtype) == ("pictures", (40, 3), np.float32)
    assert data.rows(full_size, None)[1] == "generated"


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
    work = Work(lambda: near, {"peer": lambda: far}, probe=agreeing)
    assert compare(work, near, {"peer": far}) == {"peer": {"disagreement": None, "labels_differ": 0.0}}
    assert "9" in compare(work, near, {"peer": far._replace(value=9.0)})["peer"]["disagreement"]
    parted = work._replace(probe=Work(lambda: near, {"peer": lambda: far}))
    assert "100.00%" in compare(parted, near, {"peer": near})["peer"]["disagreement"]


def test_every_side_goes_first_in_turn():
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("side", fresh.SIDES)
def test_programs_of_fresh_processes_fit_and_time(side, tmp_path, capsys):
    case = fresh.FreshCase("dbscan", "DBSCAN", "cluster", {"eps": 3.0, **({"n_jobs": 1} if side == "warm" else {})})
    np.save(tmp_path / "rows.npy", fresh.draw(case, quick=True))
    exec(compile(fresh.program(case, side, tmp_path / "rows.npy"), "program", "exec"), {})
    assert float(capsys.readouterr().out) > 0
