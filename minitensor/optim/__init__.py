"""minitensor: optim."""
