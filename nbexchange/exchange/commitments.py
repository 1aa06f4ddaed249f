"""Which upload keeps the time of its header: one at a time for each student and assignment.

A digest in the header fixes the bytes, so the time of the header may count even if the last byte
arrives much later. A student with several open uploads could still choose among them later, when
the solution is known. So only the first of the open uploads is committed.

An interrupted upload is remembered for as long as a digest keeps the time (COMMITMENT). A retry
with the same `Idempotency-Key` and digest is the same upload, and has the time of the first header.
A different upload replaces it, so a student never has more than one to choose from. Each process
keeps this state for itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from nbexchange.exchange.official_time import COMMITMENT
from nbexchange.exchange.submissions import Admission
from nbexchange.identity import User


@dataclass
class Commitment:
    """An upload that keeps its header's time. Call `end` once for each `begin` that returned it."""

    idempotency_key: str | None
    digest: str
    admission: Admission
    under_way: int = 0

    def end(self) -> None:
        self.under_way -= 1

    def is_for(self, idempotency_key: str | None, digest: str, admission: Admission) -> bool:
        """Whether the admitted request is another attempt of the same upload."""
        same = (idempotency_key, digest) == (self.idempotency_key, self.digest)
        return same and idempotency_key is not None and not self.has_expired(admission)

    def has_expired(self, admission: Admission) -> bool:
        return admission.arrived_at - self.admission.arrived_at > COMMITMENT


class Commitments:
    def __init__(self) -> None:
        self._newest: dict[tuple[int, str, int], Commitment] = {}
        """The commitment of each student and assignment, oldest first."""

    def begin(
        self, user: User, idempotency_key: str | None, digest: str, admission: Admission
    ) -> Commitment | None:
        """Return the upload's commitment; None if another upload is in progress."""
        self._forget(admission)
        key = (user.org_id, user.name, admission.assignment_pk)
        commitment = self._newest.get(key)
        if commitment is None or not commitment.is_for(idempotency_key, digest, admission):
            if commitment is not None and commitment.under_way:
                return None
            self._newest.pop(key, None)  # so that the new one is at the end of the dict
            commitment = self._newest[key] = Commitment(idempotency_key, digest, admission)
        commitment.under_way += 1
        return commitment

    def _forget(self, admission: Admission) -> None:
        """Drop expired commitments: at most two for each new one."""
        for key, commitment in list(itertools.islice(self._newest.items(), 2)):
            if commitment.has_expired(admission) and not commitment.under_way:
                del self._newest[key]

    def __len__(self) -> int:
        return len(self._newest)
