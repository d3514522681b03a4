import transformers  # noqa: F401  # first, as our classes are registered when it is: see hub/auto_registration.py
