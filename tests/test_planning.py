"""Predictions of fits, beside counts of the compiled programs and the fits themselves."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import pytest
from command_line import call

import jaxcluster as jc
from jaxcluster import planning
from jaxcluster.cluster import lloyd
from jaxcluster.core import machine
from jaxcluster.ops.distance import squared_norms
from jaxcluster.types import Points

ROUND = planning.Rates("round numbers", 1e9, 4e9, 1e8, 1e7, 1e9, entries=1e8)


def test_operations_are_those_of_the_program():
    n, d, k = 512, 256, 16

    def assign(x):
        samples = lloyd.Samples(Points(x, jnp.ones(n)), squared_norms(x))
        return lloyd.assignment_step(jnp.zeros((k, d)), samples, options=lloyd.LloydOptions())[0]

    counted = jax.jit(assign).lower(jnp.zeros((n, d))).compile().cost_analysis()["flops"]
    operations = jc.plan("kmeans", n, d, k, rates=ROUND._replace(shared=True)).operations
    # The program computes norms, minima and sums beside the products.
    assert operations <= counted < 2 * operations


def test_a_plan_reads_as_a_line():
    planned = jc.plan("kmeans", 10_000, 100, 10, devices=4, rates=ROUND, steps=7, init="random")
    line = f"Plan(kmeans, 10,000 × 100, k = 10, 4 devices (round numbers): {planned.seconds:.3g} s, "
    assert repr(planned).startswith(line)
    assert "seconds of 7 steps in all" in planned._repr_html_()
    assert "more than it has" in repr(planned._replace(memory=1e12))


def test_seconds_follow_the_formula():
    p = jc.plan("kmeans", 10_000, 100, 10, devices=4, rates=ROUND, steps=7, init="random")
    products, passes = 4 * 2500 * 10 * 100 / 1e9, 2500 * 10 / 1e8
    sent = 2 * 3 / 4 * (10 * 100 + 10 + 1) * 4
    assert p.sent == pytest.approx(sent)
    read = (2 * 2500 * 100 + planning.ROW_WORDS * 2500 + 2 * 10 * 100) * 4
    assert p.step_seconds == pytest.approx(max(products, read / 1e8) + passes + sent / 1e7)
    assert p.limit == "memory"
    assert p.seconds == pytest.approx(p.start_seconds + 7 * p.step_seconds)
    assert jc.plan("kmeans", 10_000, 100, 10, devices=4, rates=ROUND).seconds > p.seconds


@pytest.mark.parametrize("method", planning.METHODS)
def test_more_devices_take_less_of_each(method):
    one, four = (jc.plan(method, 100_000, 20, 50, devices=count, chip="v5e", steps=3) for count in (1, 4))
    assert four.operations == pytest.approx(one.operations)
    assert four.bytes < one.bytes
    assert four.memory <= one.memory
    assert one.sent == 0
    assert (four.sent > 0) == (method != "silhouette")


def test_a_table_too_large_for_a_device_does_not_fit():
    assert not jc.plan("kmeans", 10**9, 128, 32_768, devices=4, chip="h100", init="k-means||").fits
    assert jc.plan("kmeans", 10**9, 128, 32_768, devices=16, chip="h100", init="k-means||").fits


def test_devices_of_a_host_share_its_rates(monkeypatch):
    monkeypatch.setattr(machine, "CALIBRATION_SECONDS", 0.0)
    monkeypatch.setattr(machine, "COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(machine, "TILE_ROWS", 64)
    rates = machine.measured(5, 4)
    assert rates.shared
    assert min(rates.products, rates.fast_products, rates.entries, rates.bandwidth) > 0
    assert rates.of_device(2).products == rates.products / 2
    assert rates.of_device(2).memory == rates.memory / 2


def test_plan_by_the_shell():
    options = ("plan", "kmeans", "--n", 10**6, "--d", 32, "--k", 100, "--devices", 8, "--chip", "v6e")
    shown = call(*options).stdout
    assert "TPU v6e" in shown
    assert "seconds of 100 steps in all" in shown
    planned = json.loads(call(*options, "--json").stdout)
    assert planned["operations"] == jc.plan("kmeans", 10**6, 32, 100, devices=8, chip="v6e").operations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dbscan"}, "method"),
        ({"chip": "z80"}, "chip"),
        ({"devices": 0}, "devices"),
        ({"init": "x"}, "init"),
        ({"k": 11}, "n_samples=10 should be >= k=11"),
    ],
)
def test_unknown_names_and_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        planning.plan(**{"method": "kmeans", "n": 10, "d": 2, "k": 2, "chip": "v5e", **options})


def test_choices_of_the_shell_are_those_of_python():
    from jaxcluster.cli import plan

    assert {each.value for each in plan.Method} == {*planning.METHODS}
    assert {each.value for each in plan.Chip} == {*planning.CHIPS}
    assert {each.value for each in plan.Start} == {*planning.INITS}
