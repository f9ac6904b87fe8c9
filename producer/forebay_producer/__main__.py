from forebay_producer.cli import app

app()
