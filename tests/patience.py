"""How long a test waits for what never comes: the one limit of all tests, for a hang and not for a busy machine."""

PATIENCE = 3600  # seconds
