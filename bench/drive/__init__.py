"""The one client that asks every contender, over Kafka or HTTP."""
