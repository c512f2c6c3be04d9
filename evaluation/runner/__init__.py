"""What runs measurements: their base classes, partial results, the list of all result files."""
