"""Script form of `vithub finetune` with the same options, for `accelerate launch scripts/finetune_accelerate.py`."""

import sys

from vithub.scripts.command_line import app, run

if __name__ == "__main__":
    sys.exit(run(lambda: app(["finetune", *sys.argv[1:]])))
