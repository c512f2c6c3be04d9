"""Measure models by one protocol: verbs that write JSON, and the page that is made of it."""
