from forebay_local.cli import app

app()
