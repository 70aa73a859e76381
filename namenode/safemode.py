"""Safe mode: right after the start there may be too few DataNodes to write to."""

from __future__ import annotations

from collections.abc import Callable

from ..common.errors import SafeMode


class SafeModeGate:
    """Refuses mutations until enough DataNodes have been heard of. Reads are served all the while."""

    def __init__(self, live_nodes: Callable[[], int], needed: int) -> None:
        self._live_nodes = live_nodes
        self._needed = needed
        self._left = needed <= 0

    def reason(self) -> str:
        """Why safe mode is on; "" when it is off. It does not come back."""
        if self._left:
            return ""
        live = self._live_nodes()
        if live >= self._needed:
            self._left = True
            return ""
        return f"{live} of {self._needed} DataNodes have registered since the NameNode started"

    def refusal(self, operation: str) -> SafeMode | None:
        """Why *operation* may not go on; None if it may."""
        if not self._left and (reason := self.reason()) and operation != "renew_lease":
            return SafeMode(f"the NameNode is in safe mode: {reason}")
        return None
