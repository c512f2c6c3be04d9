"""Recorded episodes: collected, held in memory or on disk, and cut into windows."""
