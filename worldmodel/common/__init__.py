"""What every package may use: files, results, commands, clusters, timing, videos, hashing."""
