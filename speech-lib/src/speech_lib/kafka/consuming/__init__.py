"""The parts of `speech_lib.kafka.consumer`."""
