"""Deliberate mistakes in the code, one at a time: does a test notice?

    python -m tests.mutants [--only ID,..] [--stale] [--out FILE]

The checkout is copied. In the copy one mistake is made, the tests that claim the place run until one fails, and it is
taken back. Results are kept in ``--out``, each as long as the mutated file and its tests stay as they are, so that an
interrupted run goes on where it ended and the next one tries what has changed. ``--only`` tries again in any case;
``--stale`` only says which rows no longer fit the code.

A row is written as

    interp_lab/contract/logits.py: tests/contract/test_contract.py

    C8: a negative class is let through
    - if count and not (0 <= target.min() and
    + if count and not (
    survives: where no test can see the mistake, why not

The first line, the place and its tests (arguments of pytest), holds for all rows below it; a row with other tests has a
line ``tests:``. ``-`` and ``+`` are the old and the new text, several lines where needed, which need not be whole lines.
A place is a file, or a folder of which exactly one file holds the old text; without a suffix it is either,
``interp_lab/plot.py`` or ``interp_lab/plot/``, so that a room may be divided.
"""

import interp_lab  # noqa: F401  # before torchvision, which it may have to mend
