import transformers  # noqa: F401  # imported first, which registers our classes: see hub/auto_registration.py
