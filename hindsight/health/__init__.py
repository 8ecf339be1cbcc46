"""How far the live path is behind the market, and what a person should do about it."""
