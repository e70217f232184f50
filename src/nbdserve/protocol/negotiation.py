"""What a client asks, in which order, and what it makes do with: decided apart from any I/O.

A generator over answers, so that the order reads as it happens: the best reply mode first, then the
contexts that need it, then the export; each step falls back where the spec wants it to.
Source: NBD proto.md, "Metadata querying", "NBD_OPT_GO"; its extension-ext-header branch.
"""

from collections.abc import Generator
from dataclasses import dataclass

from nbdserve.protocol.client_handshake import Answer, ClientHandshake, Greeted
from nbdserve.protocol.constants import HandshakeFlag, Info, Option, OptionReply
from nbdserve.protocol.messages import BASE_ALLOCATION, ReplyMode
from nbdserve.protocol.options import InfoRequest, MetaRequest

__all__ = ["Wish", "negotiate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client would like; the server may offer less, but for the export.

    Attributes:
        export: its name.
        mode: the best reply mode to ask for.
        contexts: metadata contexts to select.
        infos: information to ask for. Asking for BLOCK_SIZE is a promise to obey it.
    """

    export: str = ""
    mode: ReplyMode = ReplyMode.EXTENDED
    contexts: tuple[str, ...] = (BASE_ALLOCATION,)
    infos: tuple[Info, ...] = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)


def negotiate(
    handshake: ClientHandshake, greeted: Greeted, wish: Wish
) -> Generator[None, Answer, Answer]:
    """Ask for what is wished; sent each answer, return the one that refuses the export.

    It never returns if the server serves the export: then the handshake's next event is Connected.
    """
    if not greeted.flags & HandshakeFlag.FIXED_NEWSTYLE:
        handshake.choose(wish.export)
        return (yield)
    if wish.mode is ReplyMode.EXTENDED:
        handshake.ask(Option.EXTENDED_HEADERS)
        yield
    if wish.mode >= ReplyMode.STRUCTURED > handshake.mode:
        handshake.ask(Option.STRUCTURED_REPLY)
        yield
    if wish.contexts and handshake.mode >= ReplyMode.STRUCTURED:
        handshake.ask_meta(Option.SET_META_CONTEXT, MetaRequest(wish.export, wish.contexts))
        yield
    handshake.ask_info(Option.GO, InfoRequest(wish.export, wish.infos))
    answer = yield
    if answer.reply == OptionReply.ERR_UNSUP and handshake.mode is not ReplyMode.EXTENDED:
        handshake.choose(wish.export)
        answer = yield
    return answer
