"""Speed, fidelity, consistency and control of world models, and the report."""
