"""Blocking work beside the event loop, undone when nobody wants its result any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(
    work: Callable[[], _T], undo: Callable[[_T], object], hurry: Callable[[], object] = lambda: None
) -> _T:
    """Do blocking work in a thread; when cancelled, ``hurry`` it, wait, and ``undo`` what it has done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        hurry()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            await asyncio.to_thread(undo, task.result())
        raise
