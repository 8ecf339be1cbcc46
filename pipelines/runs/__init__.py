"""How runs start: forked from a warm process, looked after and ended by whoever asks."""
