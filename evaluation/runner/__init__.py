"""What runs measurements: commands, parts that are kept, the list of all results."""
