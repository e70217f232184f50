"""The commands: each gathers, plans and applies, and returns an Outcome; none of them prints.

A command is a module with

    HELP = "one line, lower case"
    CHANGES = False            # True: it also takes -n/--dry-run
    def add_arguments(parser: argparse.ArgumentParser) -> None
    async def run(context: Context, arguments: argparse.Namespace) -> Outcome

where it may be repeated (`--watch`) also

    def repeats(arguments: argparse.Namespace) -> float | None    # seconds between two runs

and where it wants no inventory, nodes or exports, and so no context, `ALONE = True`; where it has
something to say of an inventory without nodes, `NEEDS_NODES = False`. It stands in
`minicloud.cli.COMMANDS`. It is imported when it is asked for.
"""
