"""The sweeps of the book go on where they were interrupted."""

import json

import pytest

from book.sweep import rows, sweep


def _run(journal, units, measure, executor="none"):
    sweep(journal, measure, units, executor, total=len(units), desc="", unit="")


def _squares(unit):
    return [[unit, unit**2]]


def _that_ends_at_three(unit):
    if unit == 3:
        raise KeyboardInterrupt
    return _squares(unit)


def test_what_was_measured_before_an_interruption_is_kept(tmp_path):
    journal = tmp_path / "new" / "rows.jsonl"
    assert rows(journal) == []
    with pytest.raises(KeyboardInterrupt):
        _run(journal, [1, 2, 3, 4], _that_ends_at_three)
    assert rows(journal) == [[1, 1], [2, 4]]
    _run(journal, [3, 4], _squares)
    assert rows(journal) == [[1, 1], [2, 4], [3, 9], [4, 16]]


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    journal = tmp_path / "rows.jsonl"
    _run(journal, [1, 2], _squares)
    journal.write_bytes(journal.read_bytes()[:-3])
    assert rows(journal) == [[1, 1]]
    _run(journal, [2], _squares)
    assert rows(journal) == [[1, 1], [2, 4]]


@pytest.mark.slow
def test_processes_measure_the_same(tmp_path):
    journal = tmp_path / "rows.jsonl"
    _run(journal, [4, 9, 16], _squares, "processes")
    assert sorted(rows(journal)) == [[4, 16], [9, 81], [16, 256]]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A function that measures one claim over eight settings, after an edit of its code; it gives the settings that were measured."""
    from book.claims import Claim
    from book.claims import sweep as claims_sweep

    results, asked = tmp_path / "claims.json", []
    results.write_text("{}")
    monkeypatch.setattr(claims_sweep, "RESULTS", results)
    monkeypatch.setattr(claims_sweep, "journal", lambda kernel: tmp_path / f"{kernel}.jsonl")

    def run(fingerprint, value):
        def measure(side, size):
            asked.append((side, size))
            return value(side, size)

        claim = Claim("page", "A sentence.", measure, 0, 1, {"side": (0, 1), "size": (1, 2, 3, 4, 5, 6, 7, 8, 9)})
        object.__setattr__(claim, "__dict__", vars(claim) | {"fingerprint": fingerprint})
        monkeypatch.setattr(claims_sweep, "all_claims", lambda: {"first": claim})
        asked.clear()
        for kernel in claims_sweep.KERNELS:
            claims_sweep.measure_missing(kernel, ["first"], "none")
        claims_sweep.write_results()
        return len(asked), json.loads(results.read_text())["first"]

    return run


def test_a_claim_whose_sample_has_not_changed_keeps_its_other_values(small):
    count, first = small("a", lambda side, size: side / size)
    assert count == 2 * 18, "with two kinds of kernel"
    count, again = small("b", lambda side, size: side / size * (1 + 1e-9))
    assert 9 <= count <= 12, "each option takes each of its values, with the kernels that every processor has"
    assert again == first | {"fingerprint": "b"}
    assert small("b", lambda side, size: 7)[0] == 0, "known"
    for other in (lambda side, size: side / size + 0.01 * (size == 4), lambda side, size: side * 1.001 / size):
        count, moved = small(f"c{id(other)}", other)
        assert count == 2 * 18, "all are measured anew"
        assert moved["values"] != first["values"]


def test_on_another_processor_the_code_before_is_asked_first(small, monkeypatch, tmp_path):
    """Whatever a processor gives, the values stay where both codes give the same on it."""
    from book.claims import sweep as claims_sweep

    def by_the_code_before(folder, tasks):
        asked.extend(tasks)
        return [[name, code, json.dumps(s), s["side"] / s["size"] + 0.01] for name, code, s in tasks]

    monkeypatch.setattr(claims_sweep, "measure_in", by_the_code_before)
    asked, first = [], small("a", lambda side, size: side / size)[1]
    for journal in tmp_path.glob("*.jsonl"):
        journal.unlink()  # the results alone come from another processor
    count, same = small("b", lambda side, size: side / size + 0.01)
    assert count == len(asked) <= 12, "the sample alone, by both codes"
    assert same == first | {"fingerprint": "b"}
    count, moved = small("c", lambda side, size: side / size + 0.02)
    assert count == 2 * 18
    assert moved["values"]["native"] == pytest.approx([v + 0.02 for v in first["values"]["native"]], rel=1e-3)


def test_the_code_of_the_results_is_that_of_the_commit_that_wrote_them():
    from book.claims.sweep import code_of_the_results, measure_in

    with code_of_the_results() as folder:
        if folder is None:
            pytest.skip("needs the history of git")
        assert (folder / "book" / "claims" / "sweep.py").is_file()
        assert not measure_in(folder, [["no_claim", "no code", {}]])
    assert not folder.exists()
