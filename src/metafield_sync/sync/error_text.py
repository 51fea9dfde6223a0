"""What is kept of an error for whoever reads it later: what it was and where, and nothing of what it was about."""

from __future__ import annotations

from pathlib import PurePath
from traceback import walk_tb

import psycopg

import metafield_sync
from metafield_sync.errors import AppError

OUR_FOLDER = str(PurePath(metafield_sync.__file__).parent)


def error_text(error: BaseException) -> str:
    """An error in one line, without any value that a message of Python's or PostgreSQL's may quote.

    Ours say what to do, in words chosen for people. Of any other only its kind is told, the constraint it broke, and
    the place in our code it came from.
    """
    if isinstance(error, AppError):
        return f"{error.code}: {error.detail}"
    words = type(error).__name__
    if isinstance(error, psycopg.Error):
        words = f"{words} ({error.sqlstate or 'no state'})"
        if error.diag.constraint_name:
            words = f"{words}, {error.diag.constraint_name}"
    return f"{words}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in our code it came from: the innermost of our functions."""
    ours = [
        (frame.f_code.co_name, PurePath(frame.f_code.co_filename), line)
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(OUR_FOLDER)
    ]
    if not ours:
        return ""
    function, file, line = ours[-1]
    return f" in {function} ({file.relative_to(OUR_FOLDER)}:{line})"
