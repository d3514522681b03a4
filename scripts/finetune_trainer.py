"""`vithub finetune` on the loop of transformers' `Trainer`; the options are the same, and so are the losses."""

import sys

from vithub.scripts.command_line import app, run

if __name__ == "__main__":
    sys.exit(run(lambda: app(["finetune", "--front-end", "trainer", *sys.argv[1:]])))
