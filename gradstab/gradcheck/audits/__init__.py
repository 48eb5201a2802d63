"""Every custom rule inside a function, found and checked by itself."""
