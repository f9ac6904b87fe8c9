from forebay_consumer.cli import app

app()
