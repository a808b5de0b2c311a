"""How a client speaks to a gateway: `speech-ingress.v1`, as docs/protocol.md says."""
