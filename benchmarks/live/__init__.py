"""The live path measured as users run it: the real `hindsight up`, a venue over real sockets, faults and kills."""
