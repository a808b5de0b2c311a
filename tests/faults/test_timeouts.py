"""One record that is given up must not have another one stored twice.

librdkafka, where it times a record out, goes on under a new epoch, and brokers do not know again
what it sends once more under that, whatever partition it is for.
"""

import asyncio
import uuid
from collections import Counter

from speech_lib.errors import DeliveryError
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record, Stored
from speech_tools.trace.search import likely_partition
from support import whole_topic
from support.cluster import PARTITIONS, host_proxy

DELIVERY_SECONDS = 10.0


def key_of(partition: int) -> bytes:
    """Return a new key that goes to a partition."""
    while likely_partition(key := str(uuid.uuid4()), PARTITIONS) != partition:
        pass
    return key.encode()


def test_a_record_that_is_given_up_leaves_no_duplicate_of_another(cluster, topics):
    """Stored, its answer lost, and another one times out meanwhile: it is in the log once."""
    topic = topics["TOPIC_AUDIO_INGRESS"]
    cluster.wait_until_whole(topic)
    leaders = cluster.leaders(topic)
    early = 0
    late = next(number for number in leaders if leaders[number] != leaders[early])

    async def send(producer: RecordProducer, partition: int) -> Stored | DeliveryError:
        key = key_of(partition)
        try:
            return await producer.send(Record(topic, key, key))
        except DeliveryError as error:
            return error

    async def scenario() -> None:
        producer = RecordProducer(
            cluster.kafka, client_id="test", delivery_timeout=DELIVERY_SECONDS
        )
        try:
            # Connections are opened while all is well.
            opened = await asyncio.gather(*(send(producer, number) for number in leaders))
            assert [type(each) for each in opened] == [Stored] * PARTITIONS
            swallowed = cluster.toxiproxy.answers_swallowed
            with swallowed(host_proxy(leaders[early])):
                first = asyncio.create_task(send(producer, early))
                await asyncio.sleep(DELIVERY_SECONDS - 1.5)  # so it is nearly given up
                with swallowed(host_proxy(leaders[late])):
                    second = asyncio.create_task(send(producer, late))
                    given_up = await first
                assert isinstance(given_up, DeliveryError)
                assert given_up.stored == "unknown"
                await second
                assert isinstance(await send(producer, late), Stored)
        finally:
            await producer.close(5)

    asyncio.run(scenario())
    stored = Counter(record.key for record in whole_topic.read(cluster.kafka, topic))
    assert set(stored.values()) == {1}
    assert len(stored) == PARTITIONS + 3
