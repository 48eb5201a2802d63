"""The function under test: its arguments, its traits, and programs made of it."""
