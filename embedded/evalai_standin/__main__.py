"""`python -m embedded.evalai_standin --port P --config FILE.json`."""

import sys
from argparse import ArgumentParser
from pathlib import Path

import uvicorn

from embedded.evalai_standin.app import create_app
from embedded.evalai_standin.config import read_config
from evaluation.errors import InvalidConfiguration


def main() -> int:
    """Serve until interrupted; 2 where the configuration is wrong."""
    parser = ArgumentParser(prog="python -m embedded.evalai_standin", description="A stand-in for EvalAI's server.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--config", type=Path, required=True, help="users, challenges, phases, leaderboards as JSON")
    arguments = parser.parse_args()
    try:
        app = create_app(read_config(arguments.config))
    except InvalidConfiguration as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", lifespan="off")
    return 0


if __name__ == "__main__":
    sys.exit(main())
