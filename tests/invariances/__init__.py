"""Changes that must not change an answer, times every public function that takes a model, times small networks.

A new network is a line in ``networks``, a new function a line in ``functions``, a new change a line in ``changes``.
``python -m tests.invariances`` runs the whole tables and counts what came.
"""

import interp_lab  # noqa: F401  # before torchvision, which it may have to mend
