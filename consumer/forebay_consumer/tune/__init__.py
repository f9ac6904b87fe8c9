"""What `forebay-consumer tune` is made of: the batches, the sweep, the simulation of linger, what is shown."""
