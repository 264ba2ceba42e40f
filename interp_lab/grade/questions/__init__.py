"""The graded questions of every exercise; never mounted in the sandbox. They hold inputs and properties, no answers."""

from importlib import import_module

from ..question import Question


def questions(exercise: str) -> tuple[Question, ...]:
    """Those of the notebook ``"NN_topic"``.

    Raises:
        ValueError: there are none.
    """
    try:
        return import_module(f"{__name__}.exercise_{int(exercise[:2]):02d}").QUESTIONS
    except (ValueError, ModuleNotFoundError):
        raise ValueError(f"exercise {exercise!r} has no graded questions (interp_lab/grade/questions)") from None
