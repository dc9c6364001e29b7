"""Word error rate: scoring texts, and running a model over a manifest."""
