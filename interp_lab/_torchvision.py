"""torchvision, imported also beside a torch that it was not built for.

A torchvision wheel built for another torch cannot load its compiled operators, and its import then stops at the first
that it names in Python ("operator torchvision::nms does not exist"). Declaring these names is enough for the rest of
torchvision, which is Python; calling such an operator still fails. Nothing is declared before an import has failed: a
library that loads declares its operators itself, and a second declaration ends the process.
"""

import re
import sys

import torch

while True:
    try:
        import torchvision
    except RuntimeError as error:
        missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
        if missing is None:
            raise
        for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[module]  # what the failed import left behind
        torch.library.define(missing[1], "() -> ()")
    else:
        break

__all__ = ["torchvision"]
