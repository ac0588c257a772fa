"""The search for a smaller network within limits."""
