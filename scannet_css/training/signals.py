"""Leaving on a signal: at the next safe place, with a checkpoint and an exit code that says what to do.

| signal | means | exit code |
|---|---|---|
| SIGTERM, SIGUSR1 | the scheduler wants the machine | 75: run the same command again (requeue) |
| SIGINT | somebody pressed Ctrl-C | 130; the same command goes on too |
| any of them again | leave at once, what is on disk stays whole | 128 + its number, as the shell shows it |
"""

import signal
from types import FrameType

from scannet_css.errors import Stop

REQUEUE = 75  # EX_TEMPFAIL
SIGNALS = {signal.SIGTERM: REQUEUE, signal.SIGUSR1: REQUEUE, signal.SIGINT: 130}
PATIENCE = 20.0  # seconds for the batch at hand; then it is given up, since 30 are promised


class StopSignals:
    """Inside `with`, a first signal sets `requested`; whoever works asks for it, saves and calls `leave`.

    For a command that ends with the block: signals that come later than its work are ignored.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        return self._received is not None

    def leave(self) -> None:
        """Raises Stop. Also called by processes that others have told to stop."""
        received = self._received or signal.SIGTERM
        message = f"stopped by {received.name}; the same command goes on from here"
        raise Stop(message, SIGNALS[received])

    def saving(self) -> None:
        """Called before the last checkpoint is written: from here on the patience is the disk's."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)
        return self

    def __exit__(self, *_) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not self.requested:  # all is done and saved: nothing is left to be stopped but the interpreter
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The next one is the system's: it ends the process even in the middle of a long product.
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._received = signal.Signals(number)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self.leave()
