"""The helpers of the check cells; the cells themselves are tried on right and wrong answers in tests/grader."""

import pytest
import torch
from torch import nn

from interp_lab import check

CUBIC = check.Formula(lambda x: torch.stack([x**3 / 3, -(x**2) / 2], 1).flatten(2).sum(2))


def test_difference_quotient_is_the_gradient_of_each_rows_target():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.5], [2.0, 0.0]]], dtype=torch.float64)
    want = torch.stack([x[0] ** 2, -x[1]])
    torch.testing.assert_close(check.difference_quotient(CUBIC, x, torch.tensor([0, 1])), want, atol=1e-8, rtol=0)


def test_close_names_the_largest_difference_and_scales_its_tolerance():
    check.close(torch.tensor([1000.05, 1.0]), torch.tensor([1000.0, 1.0]), "scaled")
    with pytest.raises(AssertionError, match=r"(?s)why.*0\.5, at index \(1, 0\): got 2\.5, expected 2\."):
        check.close(torch.tensor([[1.1], [2.5]]), torch.tensor([[1.0], [2.0]]), "why")
    with pytest.raises(AssertionError, match="2 of its values are NaN or infinite"):
        check.close(torch.tensor([torch.nan, torch.inf, 0]), torch.zeros(3), "why")


@pytest.mark.parametrize("answer", [0.0, 1000.0, 0.8, -2.0])
def test_close_says_it_for_hidden_inputs_without_a_value_to_work_back_from(answer):
    said = {}
    for want in (0.7316, 0.7419):  # two right values, one sentence
        with pytest.raises(check.Different) as error:
            check.close(torch.tensor([answer, 0.0]), torch.tensor([want, 0.0]), "why")
        said[want] = error.value.untold
        assert said[want].startswith("why\nThe largest difference is at index (0,)")
        assert f"{want:.4g}" in str(error.value)  # on the student's own machine it is told
    assert len(set(said.values())) == 1


def test_written_down_is_what_does_without_what_the_course_gave():
    """A function of the notebook, another that measures, and one that misses a name of its own; afterwards all is back."""
    notebook = {"check": check, "measure": check.within, "fact": 3}
    exec("def known(): return fact\ndef asked(): return measure(1, 0, 2, '')\ndef lost(): return nowhere", notebook)
    before = dict(notebook)
    assert check.written(notebook["known"]) == check.written(check.elsewhere(notebook["known"])) == 3
    with pytest.raises(AssertionError, match="asked asks for measure, which is not there while grading"):
        check.written(notebook["asked"])
    with pytest.raises(NameError, match="nowhere"):
        check.written(notebook["lost"])
    assert notebook == before


def test_within_takes_both_ends_and_no_nan():
    for value in (0.0, 0.5, 1.0):
        check.within(value, 0, 1, "why")
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(AssertionError, match=f"(?s)why.*Measured {value:.4g}, expected 0 to 1"):
            check.within(value, 0, 1, "why")


def change(what, model, x):
    if what == "The values of the model's 'weight'":
        model.weight.data += 1
    elif what == "The .grad of the parameter 'bias'":
        model.bias.grad = torch.ones(2)
    elif what == "The train/eval mode of the Linear":
        model.eval()
    elif what == "The values of the input x":
        x += 1
    elif what == "The .grad of the input x":
        x.grad = torch.ones_like(x)
    elif what == "The requires_grad flag of the input x":
        x.requires_grad_()
    elif what == "The global random state":
        torch.rand(1)


@pytest.mark.parametrize(
    "what",
    [
        "nothing",
        "The values of the model's 'weight'",
        "The .grad of the parameter 'bias'",
        "The train/eval mode of the Linear",
        "The values of the input x",
        "The .grad of the input x",
        "The requires_grad flag of the input x",
        "The global random state",
    ],
)
def test_untouched_names_what_was_changed(what):
    model, x = nn.Linear(3, 2), torch.zeros(1, 3)
    if what == "nothing":
        with check.untouched(model, x):
            model(x)
        return
    with pytest.raises(AssertionError) as error, check.untouched(model, x):
        change(what, model, x)
    assert str(error.value).startswith(what)


def test_a_question_leaves_a_students_own_errors_alone():
    def careless():
        return undefined  # noqa: F821

    with pytest.raises(NameError), check.question("9"):
        careless()
    with pytest.raises(ZeroDivisionError), check.question("9"):
        1 / 0  # noqa: B018
    with pytest.raises(AssertionError, match="Question 9: undefined is not defined"), check.question("9"):
        undefined  # noqa: B018, F821


def test_an_answer_that_stops_is_told_what_the_input_was_and_why():
    assert check.runs("Any number.", lambda x, y: x - y, 5, y=2) == 3
    with pytest.raises(AssertionError, match=r"(?s)^A zero.*ZeroDivisionError: division by zero"):
        check.runs("A zero.", lambda x: 1 / x, 0)
    for known in (AssertionError("its own words"), NotImplementedError("not yet")):

        def stops(known=known):
            raise known

        with pytest.raises(type(known), match=str(known)):
            check.runs("Nothing.", stops)


def test_slopes_refuses_a_wrong_number_and_nan():
    square = lambda x: (x**2).sum()  # noqa: E731
    check.slopes([2.0, -4.0], square, [1.0, -2.0])
    for wrong in (3.9, float("nan")):
        with pytest.raises(AssertionError, match=r"your number for x\[1\]"):
            check.slopes([2.0, wrong], square, [1.0, -2.0])


def test_jupyter_shows_the_sentence_of_a_failed_check_and_no_code(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("from interp_lab import check\nwith check.question('2'):\n    assert False, 'One half is missing.'")
    assert capsys.readouterr().out.strip() == "AssertionError: Question 2: One half is missing."
    shell.run_cell("def f():\n    raise NotImplementedError()\n\nwith check.question('3'):\n    f()")
    said = capsys.readouterr().out.strip()
    assert said.startswith("NotImplementedError: Question 3: f is not written yet.")
    assert "Traceback" not in said


def test_a_number_found_by_hand_is_known_by_its_fingerprint_and_no_other():
    known = check.fingerprint(5 / 9, "1a")
    assert check.is_known(0.5556, "1a", known)
    assert check.is_known(5 / 9, "1a", known)
    assert not check.is_known(0.5553, "1a", known)
    assert not check.is_known(5 / 9, "1b", known)
    assert check.is_known(-1e-9, "1a", check.fingerprint(0.0, "1a"))


def test_what_makes_its_tensors_on_the_cpu_does_not_follow():
    x = torch.tensor([1.0, 2.0])
    check.follows(lambda x: x + torch.ones_like(x), x)
    for wrong in (lambda x: x + torch.ones(2), lambda x: torch.zeros(2)):
        with pytest.raises(AssertionError, match="another device than the CPU"):
            check.follows(wrong, x)
    with pytest.raises(AssertionError, match="the same result"):
        check.follows(lambda x: x + 1 if x.device.type == "cpu" else x, x)
    layer = torch.nn.Linear(2, 2)
    check.follows(lambda model, x: model(x).detach(), layer, x)
    assert layer.weight.device.type == "cpu"
