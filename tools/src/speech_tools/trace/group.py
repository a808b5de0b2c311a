"""Ask how many recognisers are running: the members of their consumer group.

Used by `trace.tracer` where a text is missing.
"""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.settings import KafkaSettings, client_logger
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

REQUEST_SECONDS = 5.0
COORDINATION_SECONDS = 10.0
_NO_COORDINATOR_YET = frozenset(
    {"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"}
)
_UNTOLD = frozenset(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001  # public; the embedded broker's answer
    }
)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, BrokerUnavailable) and error.reason in _NO_COORDINATOR_YET


asking_the_coordinator = retry(
    retry=retry_if_exception(_may_pass),
    stop=stop_after_delay(COORDINATION_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
"""Ask again while the cluster appoints the group's coordinator: its first one, or another."""


@asking_the_coordinator
def members(kafka: KafkaSettings, group_id: str) -> int | None:
    """Return how many members a group has, or nothing where the broker does not tell. Blocks.

    A member that was killed counts until its session has run out.

    Raises:
        BrokerUnavailable: The broker cannot be reached, or fails.
    """
    admin = AdminClient(kafka.client_config(), logger=client_logger("group"))
    asked = admin.describe_consumer_groups([group_id], request_timeout=REQUEST_SECONDS)
    try:
        return len(asked[group_id].result(REQUEST_SECONDS + 1).members)
    except KafkaException as error:
        if error.args[0].code() in _UNTOLD:
            return None
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise BrokerUnavailable(error.args[0].name()) from None
    except TimeoutError:
        raise BrokerUnavailable("_TIMED_OUT") from None
