"""The parts of `speech_lib.kafka.producer`; start at `delivery`, which holds the rules."""
