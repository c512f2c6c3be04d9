"""The models, by family: jumpy, frame by frame, baselines; and the layers that they share."""
