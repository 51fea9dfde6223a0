"""Reads `multipart/form-data` as it arrives, holding no more of it than a piece and a boundary.

Starlette's own reader needs a package more (`python-multipart`), which nothing else here would use.
"""

from email.message import Message
from enum import Enum, auto
from typing import Protocol

_HEADERS_BYTES_MAX = 16 * 1024
_END = b"--"
_LINE = b"\r\n"


class FormSink(Protocol):
    """Takes the parts of a form in the order they come."""

    def begin(self, name: str) -> None:
        """A part of this name begins."""
        ...

    def write(self, data: bytes) -> None:
        """The next piece of the part."""
        ...


class MalformedFormError(ValueError):
    """What arrives is no `multipart/form-data`; the text says why."""


class _State(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()
    HEADERS = auto()
    CONTENT = auto()
    END = auto()


class FormReader:
    """Feed it the pieces of a request's body, then call `finish`; both raise MalformedFormError.

    Args:
        content_type: the request's Content-Type, which names the boundary.
        sink: where the parts go.
    """

    def __init__(self, content_type: str, sink: FormSink) -> None:
        head = _header("content-type", content_type)
        boundary = head.get_boundary()
        if head.get_content_type() != "multipart/form-data" or not boundary:
            raise MalformedFormError("the content type is no multipart/form-data with a boundary")
        self._delimiter = f"\r\n--{boundary}".encode()
        # As if a line had ended before: the first boundary needs none.
        self._buffer = bytearray(_LINE)
        self._state = _State.PREAMBLE
        self._sink = sink

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> None:
        """Check that the form came to its end."""
        if self._state is not _State.END:
            raise MalformedFormError("the form ends before its last boundary")

    def _step(self) -> bool:
        """Read on as far as the state allows; False when more must arrive first."""
        if self._state in {_State.PREAMBLE, _State.CONTENT}:
            return self._content()
        if self._state is _State.BOUNDARY:
            return self._boundary()
        if self._state is _State.HEADERS:
            return self._headers()
        self._buffer.clear()
        return False

    def _content(self) -> bool:
        at = self._buffer.find(self._delimiter)
        # What could be the beginning of a boundary stays until it is known whether it is one.
        upto = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if upto:
            if self._state is _State.CONTENT:
                self._sink.write(bytes(self._buffer[:upto]))
            del self._buffer[:upto]
        if at < 0:
            return False
        del self._buffer[: len(self._delimiter)]
        self._state = _State.BOUNDARY
        return True

    def _boundary(self) -> bool:
        if len(self._buffer) < len(_END):
            return False
        if self._buffer.startswith(_END):
            self._state = _State.END
        elif self._buffer.startswith(_LINE):
            self._state = _State.HEADERS
        else:
            raise MalformedFormError("a boundary is followed by neither a line nor the end")
        return True

    def _headers(self) -> bool:
        at = self._buffer.find(_LINE + _LINE)
        if at < 0:
            if len(self._buffer) > _HEADERS_BYTES_MAX:
                raise MalformedFormError("the headers of a part are too long")
            return False
        lines = bytes(self._buffer[:at]).decode("utf-8", "replace").split("\r\n")
        del self._buffer[: at + len(_LINE + _LINE)]
        self._sink.begin(_part_name(lines))
        self._state = _State.CONTENT
        return True


def _part_name(lines: list[str]) -> str:
    for line in lines:
        title, _, value = line.partition(":")
        if title.strip().lower() == "content-disposition":
            name = _header("content-disposition", value.strip()).get_param("name", header="content-disposition")
            if isinstance(name, str) and name:
                return name
    raise MalformedFormError("a part has no name")


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = value
    return message
