"""What a notebook shows for `plot.heatmap?` is complete, and its example runs."""

import doctest
import inspect

import pytest

from interp_lab import plot

FUNCTIONS = [getattr(plot, name) for name in plot.__all__ if inspect.isfunction(getattr(plot, name))]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_docstring_tells_every_argument_and_its_example_runs(function):
    text = inspect.getdoc(function)
    assert [name for name in inspect.signature(function).parameters if f"    {name}: " not in text] == []
    (example,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={})
    assert doctest.DocTestRunner().run(example).failed == 0
    assert example.examples
