"""The processes of a harness that runs pairs on this machine, by the run directories below its folder."""

from pathlib import Path

import psutil

from local_jobs.run_directory import describe, processes_of


class PairProcesses:
    """What a harness's tests ask of its processes."""

    workdir: Path

    def processes(self) -> list[psutil.Process]:
        return processes_of(f"{self.workdir.resolve()}/")

    def left(self) -> list[str]:
        lines = []
        for process in self.processes():
            try:
                lines.append(f"{process.environ()['PAIR_DIR']}: {describe(process)}")
            except psutil.NoSuchProcess:
                continue
        return lines
