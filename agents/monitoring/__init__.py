"""What a person sees of an agent and its world model: callbacks, comparisons, videos."""
