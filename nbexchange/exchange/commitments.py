"""Which upload keeps the time of its header: one at a time of each student and assignment.

A digest in the header fixes the bytes, so the time of the header may count however late the last
byte is. A student who holds several uploads open could still choose among them later, when the
solution is known. So only the first of those under way is committed.

What a broken connection has begun is remembered for as long as a digest holds the time: a retry
with the same `Idempotency-Key` and digest is the same upload, and its time is that of the first
header. Another upload takes its place, so at any time there is one to choose from. All of this is
known to one process only.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from nbexchange.exchange.submissions import COMMITMENT, Admission
from nbexchange.identity import User


@dataclass
class Commitment:
    """Ends with one `end` for each `begin` that returned it."""

    idempotency_key: str | None
    digest: str
    admission: Admission
    under_way: int = 0

    def end(self) -> None:
        self.under_way -= 1

    def is_for(self, idempotency_key: str | None, digest: str, admission: Admission) -> bool:
        """Whether what was admitted now is another try of the same upload."""
        same = (idempotency_key, digest) == (self.idempotency_key, self.digest)
        return same and idempotency_key is not None and not self.has_expired(admission)

    def has_expired(self, admission: Admission) -> bool:
        return admission.arrived_at - self.admission.arrived_at > COMMITMENT


class Commitments:
    def __init__(self) -> None:
        self._newest: dict[tuple[int, str, int], Commitment] = {}
        """Of each student and assignment; the oldest first."""

    def begin(
        self, user: User, idempotency_key: str | None, digest: str, admission: Admission
    ) -> Commitment | None:
        """What an upload is committed by; None for one that begins while another is under way."""
        self._forget(admission)
        key = (user.org_id, user.name, admission.assignment_pk)
        commitment = self._newest.get(key)
        if commitment is None or not commitment.is_for(idempotency_key, digest, admission):
            if commitment is not None and commitment.under_way:
                return None
            self._newest.pop(key, None)  # the new one is the last in line to be forgotten
            commitment = self._newest[key] = Commitment(idempotency_key, digest, admission)
        commitment.under_way += 1
        return commitment

    def _forget(self, admission: Admission) -> None:
        """Those that hold no time any more: two for each that comes."""
        for key, commitment in list(itertools.islice(self._newest.items(), 2)):
            if commitment.has_expired(admission) and not commitment.under_way:
                del self._newest[key]

    def __len__(self) -> int:
        return len(self._newest)
