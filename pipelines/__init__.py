"""What runs together: the definitions, the jobs, and how the command line starts them."""
