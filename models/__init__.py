"""Complete models, one runnable file each, and the jobs they do."""
