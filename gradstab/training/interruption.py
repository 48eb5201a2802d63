"""Ctrl-C, and the SIGTERM of schedulers, that wait for the end of a dispatch."""

import contextlib
import os
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether the run was asked to stop; true from the first signal on.

    Attributes:
        number: of that signal; None without any.
    """

    def __init__(self):
        self.number: int | None = None

    def __bool__(self):
        return self.number is not None

    def raise_if_asked(self, said: str, /) -> None:
        """Raise what was held back, if there was a signal.

        Raises:
            KeyboardInterrupt: after Ctrl-C, with what is ``said``.
            SystemExit: after SIGTERM, with status 143.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt(said)
        if self.number is not None:
            raise SystemExit(128 + self.number)

    def _asked(self, number, frame):
        self.number = number
        # The next one ends the process at once, compiled code included.
        for other in SIGNALS:
            if signal.getsignal(other) == self._asked:
                signal.signal(other, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # the cursor, which the bar has hidden
            if sys.stderr.isatty():
                os.write(2, b"\nstopping after this dispatch; again: at once\n")


@contextlib.contextmanager
def deferred_signals():
    """Hold Ctrl-C and SIGTERM back for the duration of the context.

    The first one is held, and a second one ends the process. A dispatch consumes its
    state, so an interrupt in the middle would leave none. A SIGTERM that the program
    handles itself is left alone, and so is a Ctrl-C that it ignores. Outside the main
    thread, where Python delivers no signals, this does nothing.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        held = handler is not signal.SIG_IGN and handler is not None
        if held and (number == signal.SIGINT or handler is signal.SIG_DFL):
            signal.signal(number, interruption._asked)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
