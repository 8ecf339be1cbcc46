"""`hindsight up`: what runs together, and starts again when it dies."""
