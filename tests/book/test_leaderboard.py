"""The leaderboard: results of this code, complete, with the controls where they have to be."""

import json
import math

import pytest

from book import leaderboard
from interp_lab import METHODS

STORED = json.loads(leaderboard.RESULTS.read_text(encoding="utf-8"))
NETWORKS = STORED["networks"]
PARTS = ("single_deletion", "deletion", "preservation", "shares", "background")
COLUMNS = {*PARTS, "mass", "rank", "pointing", "selectivity", "moved", "changes"}
SIGNED = {"selectivity", "moved"}  # from -1 to 1


def test_the_results_are_of_this_code():
    assert STORED["fingerprint"] == leaderboard.code(), "measured with different code: run python -m book.leaderboard"


def test_a_change_of_the_code_that_moves_nothing_costs_the_first_seed_alone(tmp_path, monkeypatch):
    results, asked = tmp_path / "leaderboard.json", []
    results.write_text(json.dumps({"fingerprint": "", "networks": {}}))
    monkeypatch.setattr(leaderboard, "RESULTS", results)
    monkeypatch.setattr(leaderboard, "ROOT", tmp_path)
    monkeypatch.setattr(leaderboard, "JOURNAL", tmp_path / "rows.jsonl")
    monkeypatch.setattr("sys.argv", ["leaderboard", "--executor", "none"])

    def run(version, score):
        def measure(network, seed):
            asked.append((network, seed))
            values = {"lrp": {"signed": {"mass": score + seed}, "magnitude": {"mass": None}}}
            return {"network": network, "seed": seed, "accuracy": 1.0, "values": values, "refused": {"rise": "why"}}

        asked.clear()
        monkeypatch.setattr(leaderboard, "measure", measure)
        monkeypatch.setattr(leaderboard, "code", lambda: version)
        leaderboard.main()
        return len(asked), json.loads(results.read_text())

    count, first = run("a", 0.5)
    assert count == 10
    assert first["networks"]["CNN"]["values"]["lrp"]["signed"]["mass"] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert run("b", 0.5) == (2, first | {"fingerprint": "b"})
    count, moved = run("c", 0.6)
    assert count == 10
    assert moved["networks"] != first["networks"]
    assert run("c", 0.7)[0] == 0


@pytest.mark.parametrize("network", leaderboard.NETWORKS)
def test_every_method_is_measured_or_refused_on_every_network(network):
    found = NETWORKS[network]
    asked = {*leaderboard.EXPLAIN, *leaderboard.CONTROLS, "oracle"}
    assert set(METHODS) < asked == set(found["values"]) | set(found["refused"])
    assert not set(found["values"]) & set(found["refused"])
    assert len(found["accuracy"]) == len(leaderboard.SEEDS)
    assert min(found["accuracy"]) > 0.95, "a network that has not learned its parts uses none"
    for method, readings in found["values"].items():
        assert set(readings) == set(leaderboard.READINGS)
        for columns in readings.values():
            assert set(columns) == COLUMNS - ({"selectivity", "changes"} if method == "oracle" else set())
            for column, scores in columns.items():
                assert len(scores) == len(leaderboard.SEEDS)
                assert all(s is None or (-1 if column in SIGNED else 0) <= s <= 1 for s in scores), (method, column)


@pytest.mark.parametrize("network", leaderboard.NETWORKS)
def test_the_oracle_scores_one(network):
    """Where effects of parts do not add up, no score of an order has to be 1 for the order of the single effects."""
    for column, scores in NETWORKS[network]["values"]["oracle"]["signed"].items():
        if column not in ("deletion", "preservation"):
            assert scores == [1.0] * len(leaderboard.SEEDS), column
        else:
            assert min(scores) > 0.9, column


@pytest.mark.parametrize("network", leaderboard.NETWORKS)
def test_noise_scores_chance(network):
    """A score of an order lies in [0, 1] and so has a standard deviation of at most 1/2 over the scenes: four standard errors."""
    found = NETWORKS[network]["values"]["random"]["signed"]
    bound = 4 * 0.5 / math.sqrt(leaderboard.IMAGES * len(leaderboard.SEEDS))
    single = sum(found["single_deletion"]) / len(leaderboard.SEEDS)
    checks = sum(found["deletion"] + found["preservation"]) / (2 * len(leaderboard.SEEDS))
    assert abs(single - 0.5) < bound
    assert abs(checks - 0.5) < bound
    for column in ("moved", "selectivity"):
        assert abs(sum(found[column]) / len(leaderboard.SEEDS)) < bound
