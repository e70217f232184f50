"""Reading ranges: over tries, mirrors and hedges, the bytes in order.

A range begins at the best mirror. If that is slower than nearly all answers of late, a second
request is made for what is left, at another mirror if there is one; the first to deliver goes on
alone. What breaks is asked for again from where it broke, wherever that is best then.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.sources.httpbudget import Budget, BudgetSpentError, HedgeAllowance
from nbdserve.sources.httpcheck import MirrorCheck
from nbdserve.sources.httpmirrors import Mirrors
from nbdserve.sources.httpparams import HttpParams
from nbdserve.sources.httpretry import FAILURES, TransientError, Tries
from nbdserve.sources.httptransfer import Transfer

__all__ = ["Reader"]


@dataclass(slots=True)
class _Tally:
    retries: int = 0
    hedges: int = 0
    evicted: int = 0


class Reader:
    """Reads ranges of the file.

    Args:
        params: the source's.
        owner: the source, as the gates know it.
        mirrors: where from.
        check: looks at a mirror before its first use.
        budget: what may be taken.
    """

    def __init__(
        self,
        params: HttpParams,
        owner: object,
        mirrors: Mirrors,
        check: MirrorCheck,
        budget: Budget,
    ) -> None:
        self.params = params
        self.owner = owner
        self.mirrors = mirrors
        self.check = check
        self.budget = budget
        self.allowance = HedgeAllowance()
        self.tally = _Tally()

    async def fill(self, offset: int, view: memoryview) -> None:
        """Fill `view` within the deadline of a read.

        Raises:
            DeviceError: that cannot be done.
        """
        until = asyncio.get_running_loop().time() + self.params.deadline
        run = _Run(self, offset, offset + len(view), low=False)
        done = 0
        try:
            while done < len(view):
                chunk = await self._next(run, until)
                view[done : done + len(chunk)] = chunk
                done += len(chunk)
        finally:
            run.close()

    async def stream(
        self, offset: int, length: int, *, low: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield a range as it comes; the deadline is for each piece.

        Args:
            offset: in bytes.
            length: likewise.
            low: come after all other reads.
        """
        loop = asyncio.get_running_loop()
        run = _Run(self, offset, offset + length, low=low)
        try:
            while not run.is_done:
                chunk = await self._next(run, loop.time() + self.params.deadline)
                run.park()
                yield chunk
                run.unpark()
        finally:
            run.close()

    async def _next(self, run: "_Run", until: float) -> bytes:
        try:
            async with asyncio.timeout_at(until):
                return await run.next()
        except TimeoutError as exc:
            raise SourceUnavailableError(
                f"http: {self.mirrors.name}: no answer within deadline={self.params.deadline:g}s; "
                "the mirror is slow or away"
            ) from exc


class _Run:
    """One range on its way: a transfer, and for a while a second one that races it."""

    def __init__(self, reader: Reader, offset: int, end: int, *, low: bool) -> None:
        self._reader = reader
        self._end = end
        self._low = low
        self._position = offset
        self._tries = Tries(reader.mirrors.name, reader.params.retry_for)
        self._lead: Transfer | None = None
        self._rival: Transfer | None = None
        self._abandoned: set[object] = set()

    @property
    def is_done(self) -> bool:
        return self._position == self._end

    async def next(self) -> bytes:
        """Return the next bytes, whatever that takes."""
        await self._reader.budget.pace()
        while True:
            lead = self._lead
            try:
                if lead is None:
                    lead = self._lead = await self._begin()
                chunk = await (self._race(lead) if self._rival else self._watch(lead))
            except FAILURES as exc:
                if lead is None or isinstance(exc, BudgetSpentError):
                    raise
                self._failed(lead, exc)
                self._lead, self._rival = self._rival, None
                continue
            if chunk:
                return chunk

    def park(self) -> None:
        """Say that the taker is busy: the places may be given to others."""
        for transfer in (self._lead, self._rival):
            if transfer is not None:
                transfer.slot.park(transfer.close)

    def unpark(self) -> None:
        """Say that bytes are waited for again."""
        self._tries.progressed()  # the taker's own time was no delay
        for transfer in (self._lead, self._rival):
            if transfer is not None:
                transfer.slot.unpark()
        if self._rival is not None and self._rival.slot.evicted:
            self._rival = None
        if self._lead is not None and self._lead.slot.evicted:
            self._reader.tally.evicted += 1
            self._lead, self._rival = self._rival, None

    def close(self) -> None:
        for transfer in (self._lead, self._rival):
            if transfer is not None:
                transfer.close()

    async def _begin(self) -> Transfer:
        reader = self._reader
        while True:
            mirror = await reader.mirrors.pick(self._tries)
            slot = await mirror.origin.gate.acquire(reader.owner, low=self._low)
            if reader.mirrors.pick_nowait(self._tries) is mirror:
                break
            slot.release()  # while it waited, others have found that this mirror will not do
        if not self._low:
            reader.allowance.earn()
        return Transfer(mirror, slot, self._position, self._end, reader.budget, reader.check)

    async def _watch(self, lead: Transfer) -> bytes | None:
        """Wait for the lead's next bytes, or give it a rival."""
        hedging = self._reader.params.hedge and not self._low
        chunk = await lead.next(lead.patience() if hedging else None)
        if chunk is not None:
            return self._took(lead, chunk)
        if lead.is_slow():
            lead.mirror.late()
            self._rival = self._challenge(lead)
            if self._rival is None:
                self._abandon_or_forgive(lead)
        return None

    def _abandon_or_forgive(self, lead: Transfer) -> None:
        """Leave a mirror that has fallen silent, once, if there is another one.

        That is no hedge, whose number is bounded: its request has failed, only not yet in words.
        """
        self._abandoned.add(lead.mirror)
        other = self._reader.mirrors.pick_nowait(self._tries, without=self._abandoned)
        if other is None or not lead.is_silent:
            lead.forgive()
            return
        self._failed(lead, TransientError("it has fallen silent", pushed_back=True))
        self._lead = None

    def _challenge(self, lead: Transfer) -> Transfer | None:
        """Ask a second time for what is left, if that is allowed and of any use."""
        reader = self._reader
        if not reader.allowance.may() or not reader.budget.is_spare:
            return None
        mirror = reader.mirrors.pick_nowait(self._tries, without={lead.mirror}) or lead.mirror
        slot = mirror.origin.gate.acquire_nowait(reader.owner, extra=True)
        if slot is None:
            return None
        reader.allowance.spend()
        reader.tally.hedges += 1
        return Transfer(mirror, slot, self._position, self._end, reader.budget, reader.check)

    async def _race(self, lead: Transfer) -> bytes | None:
        """Wait for the next bytes of either; who shows that it is faster goes on alone."""
        rival = self._rival
        assert rival is not None
        tasks = [asyncio.create_task(transfer.next()) for transfer in (lead, rival)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        of_lead, of_rival = tasks
        if not of_rival.cancelled():
            chunk = self._settle(of_rival, rival)
            if chunk is not None:
                lead.close()
                self._lead, self._rival = rival, None
                return self._took(rival, chunk)
        if of_lead.cancelled():
            return None
        had_begun = self._position > lead.offset
        chunk = of_lead.result()
        assert chunk is not None
        if not had_begun and self._rival is not None:
            self._rival.close()
            self._rival = None
        return self._took(lead, chunk)

    def _settle(self, task: asyncio.Task[bytes | None], rival: Transfer) -> bytes | None:
        """Return what the rival brought; None, and it is out of the race, if it failed."""
        try:
            return task.result()
        except BudgetSpentError:
            rival.close()
        except FAILURES as exc:
            self._failed(rival, exc)
        self._rival = None
        return None

    def _failed(self, transfer: Transfer, exc: Exception) -> None:
        """Take note of a failed transfer.

        Raises:
            DeviceError: there is no use in going on.
        """
        transfer.close()
        if not isinstance(exc, DeviceError | TransientError) or (
            isinstance(exc, TransientError) and exc.pushed_back
        ):
            transfer.pushed_back()
        self._reader.tally.retries += 1
        self._reader.mirrors.failed(transfer.mirror, exc, self._tries)

    def _took(self, transfer: Transfer, chunk: bytes) -> bytes:
        """Return what is new in a piece: a rival began where the lead was then."""
        self._tries.progressed()
        known = self._position - (transfer.position - len(chunk))
        fresh = chunk[known:] if known else chunk
        self._position += len(fresh)
        if self.is_done:
            self.close()  # the taker may be long with the last piece
        return fresh
