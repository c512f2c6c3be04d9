"""Dyna: agents that learn from few real steps, and from a world model that is fitted to them."""
