"""minitensor: random."""
