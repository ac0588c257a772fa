"""The ``hoplens`` command."""
