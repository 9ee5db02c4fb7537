"""One training iteration of each model, step by step: the chapters that a page tells."""
