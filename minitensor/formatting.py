"""minitensor: formatting."""
