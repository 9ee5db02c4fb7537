"""minitensor: serialize."""
