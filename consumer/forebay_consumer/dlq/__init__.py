"""Dead letters, looked at and put back: what `forebay-consumer dlq` does."""
