"""`speech stream`: speak recordings, a pipe or a microphone to a gateway, until all is stored."""
