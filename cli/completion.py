"""`leaderboard completion`: commands and options complete in bash, zsh and fish."""

from typing import Literal

from cli.arguments import Flag

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell | None = None, /, *, install: Flag = False) -> None:
    """Print the completion script of a shell, or install it where that shell looks for it.

    For this session only: eval "$(leaderboard completion bash)".

    Parameters
    ----------
    shell
        The shell; the one that this runs in if not given.
    install
        Write it to the shell's folder of completions, and print the file's name. Start a new shell afterwards.
    """
    from cli.main import app  # which names this module

    if install:
        print(app.install_completion(shell=shell, add_to_startup=False))
    else:
        print(app.generate_completion(shell=shell))
