"""The mirrors of a source: which is asked next, and which no more.

The best by its score is asked; another one takes its place only if it is clearly better, so that
a file is read from one place and others are not even looked at while all is well. A mirror that
fails for good (404, other content) is excluded with one warning, and the others serve; when none
is left, that is the error, and those that may have recovered are given another chance.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Sequence

from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.sources.httpmirror import Mirror
from nbdserve.sources.httpretry import TransientError, Tries

__all__ = ["Mirrors", "OtherContentError"]

log = logging.getLogger(__name__)

_CLEARLY_BETTER = 0.7  # of the score of the one in use


class OtherContentError(SourceUnavailableError):
    """A mirror holds something else than what was opened."""


class Mirrors:
    """The mirrors of a source, in the order of preference.

    Args:
        mirrors: at least one.
    """

    def __init__(self, mirrors: Sequence[Mirror]) -> None:
        self._mirrors = mirrors
        self._chosen = mirrors[0]
        self._warned: set[tuple[Mirror, str]] = set()

    def __iter__(self) -> Iterator[Mirror]:
        return iter(self._mirrors)

    @property
    def name(self) -> str:
        """How messages call the file."""
        others = len(self._mirrors) - 1
        return self._mirrors[0].name + (f" (and {others} mirrors)" if others else "")

    @property
    def chosen(self) -> Mirror:
        """The one in use."""
        return self._chosen

    @property
    def usable(self) -> list[Mirror]:
        """Those not excluded."""
        return [mirror for mirror in self._mirrors if mirror.excluded is None]

    def prefer(self, mirror: Mirror) -> None:
        """Use this one until another is clearly better."""
        self._chosen = mirror

    async def pick(self, tries: Tries) -> Mirror:
        """Choose the mirror to ask, waiting if all of them have to be left alone for a while.

        Raises:
            DeviceError: that would take longer than the read has patience.
        """
        while True:
            mirror = self.pick_nowait(tries)
            if mirror is not None:
                return mirror
            soonest = min(self._free_at(mirror, tries) for mirror in self.usable)
            try:
                wait = tries.wait_until(soonest)
            except DeviceError:
                self._gave_up()
                raise
            await asyncio.sleep(wait)

    def pick_nowait(self, tries: Tries, without: Collection[object] = ()) -> Mirror | None:
        """Choose the mirror to ask, out of those that may be asked now; None if none may."""
        if len(self._mirrors) == 1:
            only = self._mirrors[0]
            return only if only not in without and self.is_free(only, tries) else None
        free = [
            mirror
            for mirror in self._mirrors
            if mirror not in without and self.is_free(mirror, tries)
        ]
        if not free:
            return None
        best = min(free, key=lambda mirror: (mirror.score(), mirror.order))
        if self._chosen in free and best.score() > _CLEARLY_BETTER * self._chosen.score():
            return self._chosen
        if not without and best is not self._chosen:
            log.info("http goes on at another mirror url=%s", best.name)
            self._chosen = best
        return best

    def is_free(self, mirror: Mirror, tries: Tries) -> bool:
        """Whether a mirror may be asked now."""
        return mirror.excluded is None and self._free_at(mirror, tries) <= time.monotonic()

    def failed(self, mirror: Mirror, exc: Exception, tries: Tries) -> None:
        """Take note of a try that ended with one of FAILURES.

        Raises:
            DeviceError: no mirror will do any more.
        """
        if isinstance(exc, DeviceError):
            self._exclude(mirror, exc)
            return
        asked = exc.retry_after if isinstance(exc, TransientError) else None
        mirror.failed(asked)
        wait = tries.failed(mirror, exc)
        mirror.origin.forget()
        log.debug("http trying again url=%s not-before=%.2fs: %s", mirror.name, wait, exc)

    def _exclude(self, mirror: Mirror, exc: DeviceError) -> None:
        mirror.failed(None)
        mirror.is_other = mirror.is_other or isinstance(exc, OtherContentError)
        if len(self._mirrors) == 1:
            raise exc
        reason = str(exc).removeprefix(f"http: {mirror.name}").lstrip(": ")
        mirror.excluded = reason
        if (mirror, reason) not in self._warned:
            self._warned.add((mirror, reason))
            log.warning("http mirror excluded url=%s: %s", mirror.name, reason)
        if not self.usable:
            told = "; ".join(f"{mirror.name}: {mirror.excluded}" for mirror in self._mirrors)
            self._gave_up()
            raise SourceUnavailableError(f"http: no mirror serves the file: {told}") from exc

    def _gave_up(self) -> None:
        """Give those another chance that may have recovered: the next read shall try them."""
        for mirror in self._mirrors:
            if not mirror.is_other:
                mirror.excluded = None

    def _free_at(self, mirror: Mirror, tries: Tries) -> float:
        return max(mirror.rests_until, tries.not_before(mirror))
