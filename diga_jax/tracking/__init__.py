"""Where curves, pictures and histograms go while a run is at work: event files, W&B, MLflow."""
