"""``python -m grader SUBMISSIONS --out GRADES``: the same as ``interp-lab grade``."""

import sys

from interp_lab.cli import run

from .cli import add_grade

sys.exit(run([add_grade], ["grade", *sys.argv[1:]]))
