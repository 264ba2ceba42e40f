"""``python -m interp_lab.grade SUBMISSIONS --out GRADES``: the same as ``interp-lab grade``."""

import sys

from ..cli import main

sys.exit(main(["grade", *sys.argv[1:]]))
