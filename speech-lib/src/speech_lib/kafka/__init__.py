"""Everything that speaks to a broker or a schema registry; nothing else imports a Kafka client.

Start at `settings` (how to reach the brokers), `records` and `headers` (what goes over),
`producer`, `consumer`, `registry` and `admin` (topics). The other modules are parts of these.
"""
