"""minitensor: data."""
