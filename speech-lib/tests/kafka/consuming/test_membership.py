"""Whether a member of a group reads, as far as the brokers have told it."""

import pytest
from speech_lib.kafka.consuming.membership import Membership


def member(*told):
    """Return a member that was told these things, in order."""
    made = Membership()
    for name, *arguments in told:
        getattr(made, name)(*arguments)
    return made


JOINED = ("assigned",)
NO_GROUP = ("failed", "GROUP_AUTHORIZATION_FAILED", None)
NO_TOPIC = ("failed", "TOPIC_AUTHORIZATION_FAILED", "t")


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ([], "not_joined"),
        ([JOINED], ""),
        ([NO_GROUP], "GROUP_AUTHORIZATION_FAILED"),
        ([JOINED, NO_GROUP], "GROUP_AUTHORIZATION_FAILED"),
        ([JOINED, NO_GROUP, ("read", "t")], "GROUP_AUTHORIZATION_FAILED"),
        ([NO_GROUP, JOINED], ""),
        ([JOINED, NO_TOPIC], "TOPIC_AUTHORIZATION_FAILED"),
        ([JOINED, NO_TOPIC, ("read", "other")], "TOPIC_AUTHORIZATION_FAILED"),
        ([JOINED, NO_TOPIC, ("read", "t")], ""),
        ([JOINED, NO_TOPIC, JOINED], ""),
        ([("failed", "UNKNOWN_TOPIC_OR_PART", "t")], "UNKNOWN_TOPIC_OR_PART"),
        ([("failed", "_TRANSPORT", None)], "not_joined"),
        ([JOINED, ("failed", "_TRANSPORT", None)], ""),
    ],
)
def test_why_a_member_reads_nothing(told, problem):
    """A refusal counts until the group or the topic says otherwise; a lost broker is no refusal."""
    assert member(*told).problem == problem


def test_only_what_is_read_can_be_asked_for_again():
    """A group answers with an assignment by itself."""
    assert [member(JOINED, each).topic_fails for each in (NO_GROUP, NO_TOPIC)] == [False, True]
