from transformers import AutoModel  # noqa: F401  # first, which registers our classes: see hub/auto_registration.py
