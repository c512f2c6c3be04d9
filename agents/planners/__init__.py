"""Planners: they choose actions by imagining what follows, without training of their own."""
