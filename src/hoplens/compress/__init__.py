"""Make recurrent networks smaller and faster, with what it costs measured."""
