"""Everything that speaks to a broker or a schema registry; nothing else imports a Kafka client.

Start at `settings`, `records` and `headers`, then `producer`, `consumer`, `registry`, `admin`.
`producing` holds the parts of `producer`, `consuming` those of `consumer`.
"""
