"""Where a derivative is wrong, entry by entry, and what may have caused it."""
