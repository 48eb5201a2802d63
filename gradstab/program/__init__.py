"""A traced program, knowing no network and no checker.

`trace` makes it flat, `walk` evaluates it equation by equation, `primitives` says what
each primitive is and `reads` what an equation reads; `canonical` says when two programs
are one, and `compiled` and `shared` compile each of them once.
"""
