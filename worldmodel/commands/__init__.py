"""Verbs of ``python -m worldmodel``: frozen dataclasses whose fields are the options."""
