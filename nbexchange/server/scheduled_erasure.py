"""Erase assignments that have been hidden long enough, every ten minutes or so.

Every replica looks, so no cron job and no leader is needed; the database makes one of them erase an
assignment (hiding.py). An administrator may do it earlier with `nbexchange purge`.
"""

from __future__ import annotations

import asyncio
import logging
import random

from sqlalchemy.orm import Session

from nbexchange.database import Database
from nbexchange.errors import NbExchangeError
from nbexchange.exchange.hiding import erase_due
from nbexchange.exchange.purge_records import PurgeRecord
from nbexchange.exchange.quotas import Quotas
from nbexchange.storage import Storage, delete_all

log = logging.getLogger(__name__)

_random = random.Random()  # noqa: S311 - no secret
"""Not the shared one: property tests in the same process fail when another thread uses that."""

PAUSE_SECONDS = 600.0
"""Between two looks. Replicas vary it, so that they do not look at the same time."""

FIRST_SECONDS = 5.0
"""After the start, which may be one of many in a crash loop."""

ERASER = "the service, after the grace"
"""The name in the record of an erasure."""


def _erase_one(session: Session) -> tuple[PurgeRecord, list[str]] | None:
    return erase_due(session, ERASER)


class ScheduledErasure:
    def __init__(
        self,
        database: Database,
        storage: Storage,
        quotas: Quotas,
        under_way: set[asyncio.Future[None]],
    ) -> None:
        self._database = database
        self._storage = storage
        self._quotas = quotas
        self._under_way = under_way
        """What the end of the service waits for."""

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = FIRST_SECONDS
        while True:
            await asyncio.sleep(pause * _random.uniform(0.5, 1.5))
            pause = PAUSE_SECONDS
            # Once the rows are gone no later look finds the files, so it is not cancelled.
            work = asyncio.ensure_future(self.erase_all_due())
            self._under_way.add(work)
            work.add_done_callback(self._under_way.discard)
            await asyncio.shield(work)

    async def erase_all_due(self) -> None:
        try:
            while (erased := await self._database.write_without_timeout(_erase_one)) is not None:
                await self._finish(*erased)
        except NbExchangeError as error:
            log.warning("Hidden assignments could not be erased now, and will be later: %s", error)
        except Exception:
            log.exception("Hidden assignments could not be erased")

    async def _finish(self, record: PurgeRecord, keys: list[str]) -> None:
        self._quotas.erased(record.scope.org_id)
        left = await delete_all(self._storage, keys)
        log.warning(
            "Erased of %s, hidden by %r: %s", record.scope, record.requested_by, record.words
        )
        if left:
            log.warning(
                "%d of the files could not be deleted, because the store is unavailable. No row "
                "knows them: delete them with `nbexchange gc --delete`.",
                left,
            )
