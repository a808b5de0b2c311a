"""Checks of what is refused before the upgrade (docs/protocol.md, "Refusals")."""

from http import HTTPStatus

from speech_tools.conformance.checks import check, expect, not_testable
from speech_tools.conformance.exchange import UPGRADE, Answer, Gateway, NotTestable

_NOBODY = "https://conformance.invalid"
_OPERATOR = "only the operator can bring a gateway there"


async def _refused(gateway: Gateway, query: str, code: str) -> None:
    _is_refusal(await gateway.ask(f"{gateway.path}?{query}"), HTTPStatus.BAD_REQUEST, code)


def _is_refusal(answer: Answer, status: int, code: str) -> None:
    expect(answer.told == (status, code), f"expected {status} {code}, got {answer.told}")
    kind = answer.headers.get("content-type", "")
    expect(kind.partition(";")[0] == "application/json", f"its Content-Type is {kind!r}")


@check("refusals/not_found")
async def not_found(gateway: Gateway) -> None:
    """Another path gets 404 `not_found`."""
    _is_refusal(await gateway.ask(f"{gateway.path}/x"), HTTPStatus.NOT_FOUND, "not_found")


@check("refusals/method_not_allowed")
async def method_not_allowed(gateway: Gateway) -> None:
    """Another method than GET gets 405 `method_not_allowed`."""
    answer = await gateway.ask(method="POST")
    _is_refusal(answer, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed")


@check("refusals/upgrade_required")
async def upgrade_required(gateway: Gateway) -> None:
    """A plain request gets 426 `upgrade_required`."""
    answer = await gateway.ask(headers={})
    _is_refusal(answer, HTTPStatus.UPGRADE_REQUIRED, "upgrade_required")


@check("refusals/invalid_language")
async def invalid_language(gateway: Gateway) -> None:
    """A malformed `language`, or two, get 400 `invalid_language`."""
    for query in ("language=english%20please", "language=en&language=de"):
        await _refused(gateway, query, "invalid_language")


@check("refusals/invalid_results")
async def invalid_results(gateway: Gateway) -> None:
    """Other `results` than `text`, or two, get 400 `invalid_results`."""
    for query in ("results=words", "results=text&results=text"):
        await _refused(gateway, query, "invalid_results")


@check("refusals/results_not_offered")
async def results_not_offered(gateway: Gateway) -> None:
    """Where no texts are sent, `results=text` gets 400 `results_not_offered`."""
    answer = await gateway.ask(f"{gateway.path}?results=text")
    if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise NotTestable("this deployment sends texts")
    _is_refusal(answer, HTTPStatus.BAD_REQUEST, "results_not_offered")


@check("refusals/invalid_client_ref")
async def invalid_client_ref(gateway: Gateway) -> None:
    """An empty, long or malformed `client_ref`, or two, get 400 `invalid_client_ref`."""
    for value in ("", "a" * 65, "a%20b", "a&client_ref=a"):
        await _refused(gateway, f"client_ref={value}", "invalid_client_ref")


@check("refusals/invalid_on_disconnect")
async def invalid_on_disconnect(gateway: Gateway) -> None:
    """Other `on_disconnect` than `store` and `discard`, or two, get 400 `invalid_on_disconnect`."""
    for value in ("keep", "store&on_disconnect=store"):
        await _refused(gateway, f"on_disconnect={value}", "invalid_on_disconnect")


@check("refusals/origin_not_allowed")
async def origin_not_allowed(gateway: Gateway) -> None:
    """An `Origin` that is not on the operator's list gets 403 `origin_not_allowed`."""
    answer = await gateway.ask(headers=UPGRADE | {"Origin": _NOBODY})
    if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise NotTestable("this deployment has no list of origins: every page may connect")
    _is_refusal(answer, HTTPStatus.FORBIDDEN, "origin_not_allowed")


@check("refusals/order")
async def order(gateway: Gateway) -> None:
    """Of several reasons the first row of the table is told."""
    wrong = "?language=-&results=-&client_ref=&on_disconnect=-"
    other_path = await gateway.ask(f"{gateway.path}/x{wrong}", method="POST", headers={})
    _is_refusal(other_path, HTTPStatus.NOT_FOUND, "not_found")
    plain = await gateway.ask(f"{gateway.path}{wrong}", headers={})
    _is_refusal(plain, HTTPStatus.UPGRADE_REQUIRED, "upgrade_required")
    _is_refusal(await gateway.ask(gateway.path + wrong), HTTPStatus.BAD_REQUEST, "invalid_language")


not_testable("refusals/draining", "A gateway that stops refuses with 503 `draining`.", _OPERATOR)
not_testable("refusals/not_ready", "Without a broker it refuses with 503 `not_ready`.", _OPERATOR)
not_testable(
    "refusals/at_capacity",
    "With every slot taken it refuses with 503 `at_capacity`.",
    "it would keep others out",
)
not_testable(
    "refusals/too_many_connections_from_address",
    "With too many from one address it refuses with 429 `too_many_connections_from_address`.",
    "the limit is not told, and it would keep others of this address out",
)
