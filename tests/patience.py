"""How long a test waits for what never comes: the one limit of all tests, for a hang and not for a busy machine.

And whether tests that have a long form run it, as `make test-long` asks.
"""

import os

LONG = bool(os.environ.get("VITHUB_LONG"))
PATIENCE = 3600  # seconds
