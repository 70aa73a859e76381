"""Safe mode: right after the start there may be too few DataNodes to write to; and operators may order it."""

from __future__ import annotations

from collections.abc import Callable

from ..common.errors import SafeMode


class SafeModeGate:
    """Refuses mutations until enough DataNodes have been heard of, and while an operator says so. Reads are served all the while."""

    def __init__(self, live_nodes: Callable[[], int], needed: int) -> None:
        self._live_nodes = live_nodes
        self._needed = needed
        self._left = needed <= 0
        self._ordered = ""

    def reason(self) -> str:
        """Why safe mode is on; "" when it is off. For want of nodes it does not come back."""
        if self._ordered:
            return self._ordered
        if self._left:
            return ""
        live = self._live_nodes()
        if live >= self._needed:
            self._left = True
            return ""
        return f"{live} of {self._needed} DataNodes have registered since the NameNode started"

    @property
    def ordered(self) -> bool:
        return bool(self._ordered)

    def keep_on(self, reason: str) -> None:
        """Stay in safe mode because of an order, until this is called with ""."""
        self._ordered = reason

    def leave(self) -> None:
        """Don't wait for more DataNodes."""
        self._ordered = ""
        self._left = True

    def refusal(self, operation: str) -> SafeMode | None:
        """Why *operation* may not go on; None if it may."""
        if self._left and not self._ordered:
            return None
        if (reason := self.reason()) and operation != "renew_lease":
            return SafeMode(f"the NameNode is in safe mode: {reason}")
        return None
