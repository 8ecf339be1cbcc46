"""The models that predict, one file each; others come as Python entry points (see registry.py)."""
