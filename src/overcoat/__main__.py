"""`python -m overcoat` is the command `overcoat`."""

import sys

from overcoat.cli import main

sys.exit(main())
