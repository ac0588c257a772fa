"""What runs: cells, stacks, recurrent models, and the readers that make graphs of them."""
