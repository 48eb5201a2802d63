"""Ctrl-C that waits for the end of a dispatch."""

import contextlib
import signal
import threading


class Interruption:
    """Whether Ctrl-C was pressed; true from the first time on."""

    def __init__(self):
        self.count = 0

    def __bool__(self):
        return self.count > 0

    def raise_if_pressed(self):
        """Raise the KeyboardInterrupt that was held back, if there was one."""
        if self:
            raise KeyboardInterrupt

    def _pressed(self, number, frame):
        self.count += 1
        if self.count > 1:
            signal.default_int_handler(number, frame)


@contextlib.contextmanager
def deferred_interrupts():
    """Hold Ctrl-C back for the duration of the context; the second one is not held.

    A dispatch consumes its state, so an interrupt in the middle would leave none.
    Outside the main thread, where Python delivers no signals, this does nothing.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    previous = signal.signal(signal.SIGINT, interruption._pressed)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, previous)
