"""The verbs of ``python -m evaluation``: settings, help, what is printed."""
