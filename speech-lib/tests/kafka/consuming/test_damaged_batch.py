"""The end of a batch that cannot be read."""

from hypothesis import given
from hypothesis import strategies as st
from speech_lib.kafka.consuming.damaged_batch import find_end


@given(first=st.integers(0, 100), length=st.integers(1, 5_000), behind=st.integers(0, 50))
def test_the_end_is_found_wherever_it_is(first, length, behind):
    """Exactly: no record behind it is passed over, and nothing is looked at past the log's end."""
    looks = []

    def is_in_batch(offset: int) -> bool:
        looks.append(offset)
        return offset < first + length

    end = first + length + behind
    assert find_end(first, end, is_in_batch) == first + length
    assert all(first < offset < end for offset in looks)
    assert len(looks) <= 2 * length.bit_length()
