"""What the subcommands do; `hoplens.cli.app` only parses, and loads the one that runs."""
