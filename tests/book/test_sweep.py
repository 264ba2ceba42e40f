"""The sweeps of the book go on where they were interrupted."""

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
