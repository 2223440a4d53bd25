"""`python -m flux`."""

from __future__ import annotations

import sys

from flux.cli import main

sys.exit(main())
