"""Recorded episodes: how they are collected, kept in memory or on disk, and cut into windows."""
