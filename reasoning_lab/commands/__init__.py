"""What the command line does: compose, sweep, run, plan, report and the other subcommands."""
