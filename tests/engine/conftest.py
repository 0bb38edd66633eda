"""Tests of the engine run on asyncio in virtual time: see `fakes.VirtualLoop`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.fakes import VirtualLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}
