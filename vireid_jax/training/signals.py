"""SIGINT and SIGTERM as a request to stop at the next step."""

import signal
import threading


class StopRequest:
    """While it is entered, the first SIGINT or SIGTERM is noted instead of ending the process.

    A second one ends it at once, by the system's own hand. Outside the main thread signals are left
    alone, and so is one that was ignored before, as under nohup.

    Attributes:
      number: of the signal that came, or 0.
    """

    def __init__(self):
        """See the class."""
        self.number = 0
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.number = number
        for noted in self._before:
            signal.signal(noted, signal.SIG_DFL)
