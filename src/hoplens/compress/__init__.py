"""From a trained network to a smaller one: what `hoplens compress` is made of."""
