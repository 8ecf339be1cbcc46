"""What the project promises about speed, size and learning, measured: one file per figure, run by `make bench`."""
