"""The two query parameters that every list has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from sbs_server.api.schemas import MAX_PAGE_ITEMS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins, and how long it may be."""

    after: str | None
    limit: int


def _place(
    after: Annotated[str | None, Query(max_length=500, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS)] = 100,
) -> Place:
    return Place(after, limit)


Paging = Annotated[Place, Depends(_place)]
