"""What a worker checks before it trains for another process: the package, the data, the folder, its threads."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from .._version import __version__
from ..backend.threads import set_num_threads
from ..datasets import Dataset
from .data_source import DataSource, load
from .executors import cluster_threads


@dataclass(frozen=True)
class Origin:
    """The process that sends calls to workers."""

    version: str = __version__
    process: tuple[str, int] = field(default_factory=lambda: (platform.node(), os.getpid()))

    def check_worker(
        self, data: Dataset | DataSource, folder: Path | None = None, threads: int | None = None
    ) -> Dataset:
        """Load the data and set the number of threads, in the process that was sent a call.

        Parameters
        ----------
        data : Dataset or DataSource
        folder : Path, optional
            Where the call will write.
        threads : int, optional
            By default a worker of a cluster uses its share of its machine.

        Returns
        -------
        Dataset

        Raises
        ------
        ChildProcessError
            If this is another process than the origin and has another version
            of the package, not the data or not the folder.
        """
        threads = cluster_threads() if threads is None else threads
        if threads is not None:
            set_num_threads(threads)
        here = (platform.node(), os.getpid())
        if here == self.process:
            return load(data)
        if self.version != __version__:
            raise ChildProcessError(
                f"every worker must have cyconv {self.version}, as the process that sends runs, "
                f"but {here[0]} has {__version__}"
            )
        if folder is not None and not folder.is_dir():
            raise ChildProcessError(f"every worker must see the folder {folder}, but on {here[0]} there is none")
        try:
            return load(data)
        except (OSError, ValueError) as error:
            where = data.folder if isinstance(data, DataSource) else None
            raise ChildProcessError(
                f"every worker must have the data at {where}, but {here[0]} cannot load them: {error}"
            ) from error
