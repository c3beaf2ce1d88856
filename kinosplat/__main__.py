"""`python -m kinosplat`."""

import sys

from kinosplat.cli import main

sys.exit(main())
