"""`speech capacity`: what so many speakers need, and which limit is passed first. See `model`."""
