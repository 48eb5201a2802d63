"""A corpus of wrong and of hard correct derivative rules, and checkers judged by it."""
