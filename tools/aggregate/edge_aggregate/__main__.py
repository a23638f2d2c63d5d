"""`python -m edge_aggregate`."""

import sys

from edge_aggregate.cli import main

sys.exit(main())
