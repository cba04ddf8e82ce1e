"""python -m unlearn_core: the command line of the engine."""

import sys

from unlearn_core.cli import main

sys.exit(main())
