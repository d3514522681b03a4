"""Script form of `vithub finetune` on the loop of transformers' `Trainer`, with the same options and losses."""

import sys

from vithub.scripts.command_line import app, run

if __name__ == "__main__":
    sys.exit(run(lambda: app(["finetune", "--front-end", "trainer", *sys.argv[1:]])))
