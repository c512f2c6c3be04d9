"""Callbacks, comparisons and videos that show an agent and its world model."""
