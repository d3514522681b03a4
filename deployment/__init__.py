"""Forms of a model for other runtimes: export, quantisation, and the checks that a form must pass before it is kept."""
