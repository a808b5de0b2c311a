"""What the tests of the gateway share: those that are coroutines run on asyncio."""

import pytest


@pytest.fixture
def anyio_backend():
    """Run the coroutines among the tests with anyio's plugin, on the loop that the gateway uses."""
    return "asyncio"
