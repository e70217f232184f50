"""What each option of a client means: a table of pure functions over what was agreed so far.

A handler parses its option and says what happens next, or raises the `OptionError` that answers it.
Where that hangs on an export, the answer is a function still to be given the export's facts.
Source: NBD proto.md, "Option types", "Size constraints", "Metadata querying"; its
extension-ext-header branch.
"""

import enum
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from nbdserve.protocol.constants import MAX_OPTION_LENGTH, Info, Option, OptionReply
from nbdserve.protocol.messages import BASE_ALLOCATION, BASE_ALLOCATION_ID, ExportFacts, ReplyMode
from nbdserve.protocol.option_reader import ReceivedOption
from nbdserve.protocol.option_replies import (
    MetaContext,
    encode_block_sizes,
    encode_context,
    encode_infos,
)
from nbdserve.protocol.options import (
    MetaRequest,
    OptionError,
    parse_info_request,
    parse_meta_request,
    parse_name,
)

__all__ = [
    "HANDLERS",
    "STRUCTURED_ONLY",
    "WITH_DATA",
    "Accepted",
    "Agreed",
    "AskDriver",
    "AskExport",
    "Handler",
    "Step",
    "Terms",
]

WITH_DATA = frozenset(
    {
        Option.EXPORT_NAME,
        Option.INFO,
        Option.GO,
        Option.LIST_META_CONTEXT,
        Option.SET_META_CONTEXT,
    }
)
"""The options whose data is read; any other has none worth holding."""

STRUCTURED_ONLY = frozenset(
    {Option.STRUCTURED_REPLY, Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT}
)
"""The options a server without structured replies does not know."""

_BASE_WILDCARD = "base:"


class Terms(NamedTuple):
    """What was agreed so far; STARTTLS forgets it.

    Attributes:
        tls: the connection is encrypted.
        mode: how replies will be framed.
        context_export: the export that base:allocation was selected for.
    """

    tls: bool = False
    mode: ReplyMode = ReplyMode.SIMPLE
    context_export: str | None = None


class Accepted(NamedTuple):
    """What an option about an export that exists leads to, besides its ACK.

    Attributes:
        replies: sent before it.
        context_export: base:allocation is selected for this export.
        chosen: the transmission phase begins with this export.
    """

    replies: tuple[tuple[OptionReply, bytes], ...] = ()
    context_export: str | None = None
    chosen: ExportFacts | None = None


class Agreed(NamedTuple):
    """The option is acknowledged, and these terms hold from now on."""

    terms: Terms


class AskExport(NamedTuple):
    """The driver is asked for an export; `on_accept` may still raise OptionError."""

    name: str
    on_accept: Callable[[ExportFacts], Accepted]


class AskDriver(enum.Enum):
    """The driver is asked for its exports, or for TLS."""

    LIST = enum.auto()
    TLS = enum.auto()


Step = Agreed | AskExport | AskDriver
Handler = Callable[[Terms, ReceivedOption], Step]


def _list(_terms: Terms, received: ReceivedOption) -> Step:
    _refuse_data(received)
    return AskDriver.LIST


def _start_tls(terms: Terms, received: ReceivedOption) -> Step:
    _refuse_data(received)
    if terms.tls:
        raise OptionError(OptionReply.ERR_INVALID, "TLS was started already")
    return AskDriver.TLS


def _structured_reply(terms: Terms, received: ReceivedOption) -> Step:
    _refuse_data(received)
    if terms.mode is ReplyMode.EXTENDED:
        raise OptionError(
            OptionReply.ERR_EXT_HEADER_REQD, "extended headers were negotiated already"
        )
    return Agreed(terms._replace(mode=ReplyMode.STRUCTURED))


def _extended_headers(terms: Terms, received: ReceivedOption) -> Step:
    _refuse_data(received)
    return Agreed(terms._replace(mode=ReplyMode.EXTENDED))


def _export_name(terms: Terms, received: ReceivedOption) -> Step:
    if terms.mode is ReplyMode.EXTENDED:
        raise OptionError(OptionReply.ERR_INVALID, "extended headers go with GO alone")
    return AskExport(parse_name(_data(received)), _choose_by_name)


def _info(_terms: Terms, received: ReceivedOption) -> Step:
    name, asked = parse_info_request(_data(received))
    act = _choose if received.option == Option.GO else _inform
    return AskExport(name, partial(act, frozenset(asked)))


def _list_meta_context(terms: Terms, received: ReceivedOption) -> Step:
    name, queries = _meta_request(terms, received)
    found = not queries or not {BASE_ALLOCATION, _BASE_WILDCARD}.isdisjoint(queries)
    return AskExport(name, partial(_tell_contexts, found=found))


def _set_meta_context(terms: Terms, received: ReceivedOption) -> Step:
    name, queries = _meta_request(terms, received)
    return AskExport(name, partial(_select_contexts, found=BASE_ALLOCATION in queries))


HANDLERS: Mapping[int, Handler] = {
    Option.EXPORT_NAME: _export_name,
    Option.LIST: _list,
    Option.STARTTLS: _start_tls,
    Option.INFO: _info,
    Option.GO: _info,
    Option.STRUCTURED_REPLY: _structured_reply,
    Option.LIST_META_CONTEXT: _list_meta_context,
    Option.SET_META_CONTEXT: _set_meta_context,
    Option.EXTENDED_HEADERS: _extended_headers,
}
"""What to do about an option; ABORT has its place in the machine, for it is never refused."""


# What an export that exists leads to


def _choose_by_name(facts: ExportFacts) -> Accepted:
    # MAY, and only so do both ways into an export make the same promise.
    _need_block_size(facts)
    return Accepted(chosen=facts)


def _choose(asked: frozenset[int], facts: ExportFacts) -> Accepted:
    return _inform(asked, facts)._replace(chosen=facts)


def _inform(asked: frozenset[int], facts: ExportFacts) -> Accepted:
    if Info.BLOCK_SIZE not in asked:
        _need_block_size(facts)
    return Accepted(tuple((OptionReply.INFO, info) for info in encode_infos(facts, asked)))


def _tell_contexts(_facts: ExportFacts, *, found: bool) -> Accepted:
    return Accepted(_contexts(0) if found else ())


def _select_contexts(facts: ExportFacts, *, found: bool) -> Accepted:
    if not found:
        return Accepted()
    return Accepted(_contexts(BASE_ALLOCATION_ID), context_export=facts.name)


def _contexts(id_: int) -> tuple[tuple[OptionReply, bytes], ...]:
    return ((OptionReply.META_CONTEXT, encode_context(MetaContext(id_, BASE_ALLOCATION))),)


# Checks that several share


def _refuse_data(received: ReceivedOption) -> None:
    if received.length:
        raise OptionError(OptionReply.ERR_INVALID, "this option takes no data")


def _data(received: ReceivedOption) -> bytes:
    if received.is_passed_over:
        raise OptionError(
            OptionReply.ERR_TOO_BIG,
            f"{received.length} bytes of data; at most {MAX_OPTION_LENGTH}",
        )
    return received.data


def _meta_request(terms: Terms, received: ReceivedOption) -> MetaRequest:
    if terms.mode is ReplyMode.SIMPLE:
        raise OptionError(OptionReply.ERR_INVALID, "negotiate structured replies first")
    return parse_meta_request(_data(received))


def _need_block_size(facts: ExportFacts) -> None:
    if facts.minimum > 1:
        raise OptionError(
            OptionReply.ERR_BLOCK_SIZE_REQD,
            f"ask for NBD_INFO_BLOCK_SIZE: the minimum block is {facts.minimum} bytes",
            info=encode_block_sizes(facts),  # spares the client asking twice
        )
