"""minitensor: creation."""
