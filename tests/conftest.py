"""Settings for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

# Tests run on shared, loaded machines: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The kills last longest: begun last, they would leave all workers but one without work."""
    items.sort(key=lambda item: "test_random_kills" not in item.nodeid)
