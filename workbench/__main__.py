"""`python -m workbench` is the command `workbench`."""
import sys

from workbench.reporting.cli import main

sys.exit(main())
