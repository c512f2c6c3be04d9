"""Numbers computed from predictions: intervals, similarity, scales, readers."""
