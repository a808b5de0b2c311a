"""What the tests of hostile clients share: the event loop of the gateway that they start."""

from collections.abc import Iterator

import pytest
from support.lone_gateway import LOOP, LOOPS


@pytest.fixture(scope="module", params=LOOPS)
def either_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start gateways on this kind of event loop: what one client costs others depends on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOOP, request.param)
        yield
