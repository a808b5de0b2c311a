"""What the tests of the gateway share: those that are coroutines run on either event loop."""

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Run the coroutines among the tests with anyio's plugin, on each loop a gateway may have."""
    return "asyncio", {"use_uvloop": request.param}
