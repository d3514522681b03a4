"""`vithub finetune` as a file, for `accelerate launch scripts/finetune_accelerate.py ...`; the options are the same."""

import sys

from vithub.scripts.command_line import app, run

if __name__ == "__main__":
    sys.exit(run(lambda: app(["finetune", *sys.argv[1:]])))
