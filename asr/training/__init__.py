"""Training on Lightning: configuration, module, optimisers, callbacks, and the run that joins them."""
