r"""What every method keeps: checked inputs, an untouched model, the gradient of one logit per row.

An attribution method is ``method(model, x, target=None, *, ...) -> Tensor`` of the shape, dtype and device of ``x``. It
explains the logit :math:`f_c(x)` of the target class in eval mode and leaves the model as it was.
"""

from .gradients import check_functions, chosen_logit, differentiated, gradient
from .guard import explaining, full_precision, in_eval_mode, output_of, refuse_cuts, rounding
from .inputs import Model, Target, check_baseline, check_batch_size, check_input, check_target, inputs_of, is_finite
from .interception import UnsupportedModelError
from .logits import decisions, logits_of, pick, probabilities, resolve
from .modules import owners
from .passes import rows_per_pass, with_rows_that_fit
from .replacement import logits_in_passes, scores_of_replaced

__all__ = [
    "Model",
    "Target",
    "UnsupportedModelError",
    "check_baseline",
    "check_batch_size",
    "check_functions",
    "check_input",
    "check_target",
    "chosen_logit",
    "decisions",
    "differentiated",
    "explaining",
    "full_precision",
    "gradient",
    "in_eval_mode",
    "inputs_of",
    "is_finite",
    "logits_in_passes",
    "logits_of",
    "output_of",
    "owners",
    "pick",
    "probabilities",
    "refuse_cuts",
    "resolve",
    "rounding",
    "rows_per_pass",
    "scores_of_replaced",
    "with_rows_that_fit",
]
