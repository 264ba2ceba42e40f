"""TorchScript, whose operations no interception sees: refused by what its graph holds."""

from typing import Any

import torch

from .interception import UnsupportedModelError

CUT_IN_A_SCRIPT = [f"aten::{name}" for name in ("detach", "round", "floor", "ceil", "trunc", "sign")]


def refuse_modes(script: torch.jit.ScriptModule) -> None:
    """Refuse a script, traced in train mode, that has dropout on or takes statistics of the batch for ever."""
    graph: Any = script.inlined_graph  # held, as its nodes do not hold it
    for kind, training in (("aten::dropout", 2), ("aten::batch_norm", 5)):
        if any(list(node.inputs())[training].toIValue() is True for node in graph.findAllNodes(kind)):
            raise UnsupportedModelError(f"the scripted module holds {kind} in train mode: trace it after model.eval()")


def refuse_cuts_in(script: torch.jit.ScriptModule) -> None:
    """Refuse a script, whose operations no interception sees, that computes values without a gradient."""
    graph: Any = script.inlined_graph
    for kind in CUT_IN_A_SCRIPT:
        if graph.findAllNodes(kind):
            raise UnsupportedModelError(
                f"the scripted module holds {kind}, whose value may have come from x and has no gradient: explain the module "
                "that it was made from"
            )
