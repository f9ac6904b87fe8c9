"""Where records come from: one module per delivery mode."""
