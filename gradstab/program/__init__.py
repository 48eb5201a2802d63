"""A traced program: its canonical form, and what is compiled for it once."""
