"""Files that a program adds frames to while they are read: a zarr array, HDF5, a folder, a pattern.

Frames are written in their order. A file is complete when the next one is there; the last one, or
the only one, may grow.
"""

import glob
import os
import time
from collections import deque
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

from ..arguments import warn
from ..series.base import Source
from ..series.files import FileSource, Growth
from ..series.joined import MOST_OPEN, JoinedSource
from ..series.written import WrittenSource, last_with_values
from .addresses import is_url, without_secrets
from .files import Opener
from .natural import Key, natural
from .paths import Name, expand, parse, same_file

# The times of files may lag by as many seconds: a file that has just changed is opened again.
CLOCK_TICK = 0.1

Marks = list[tuple[int, ...] | None]
"""states of files and directories, None of one that is not there"""


class ReplacedFileError(ValueError):
    """A file does not hold the frames any more that were counted: no wait can bring them back."""


class GrowingFiles:
    """The frames that are written by now, in the files that a name stands for.

    Parameters
    ----------
    name : path
        Of a file, a folder or a pattern, which may not be there yet.
    without : path, optional
        A file that patterns and folders leave out: the output.
    opener : Opener, optional
        Opens each file.

    Raises
    ------
    ValueError
        If the name is an address, or selects frames.
    """

    def __init__(
        self, name: str, without: Path | None = None, opener: Opener | None = None
    ) -> None:
        self._opener, self._text = opener or Opener(), name
        self._place = Place(checked_name(name), self._opener, without)
        self._names: deque[Name] = deque()
        # Files that are joined already, and those after them: to join 10,000 files takes 0.1 s.
        self._groups: list[Source] = []
        self._complete: list[Source] = []
        self._ncomplete = 0
        self._last: GrowingFile | None = None
        self._series: Source | None = None
        self._made_of: tuple[int, int, Source | None] = 0, 0, None
        self.problem: Exception | None = None
        """the reason why the next frames are not read, if there is one"""

    def __str__(self) -> str:
        return self._text

    def look(self, total: int = 0, ended: bool = False) -> Source | None:
        """Return the series of all frames that are written, None if there are none.

        Parameters
        ----------
        total : int
            Frames that there will be; 0: not known.
        ended : bool
            Whether the writer has ended: chunks that it has begun are complete.

        Raises
        ------
        ReplacedFileError
            If frames that were counted are not there any more; each later look raises it again.
        """
        self.problem = None
        try:
            self._names += self._place.new_names()
            self._open_new(ended)
            count = self._last.count(total - self._ncomplete, ended) if self._last else 0
        except (ImportError, MemoryError, ReplacedFileError):
            raise
        except Exception as error:  # of any library that meets half a file
            self.problem = without_traceback(error)
            count = self._last.counted if self._last else 0
        # It is made anew after each opening, even without new frames: the old series would open the
        # file again, nobody would close it, and HDF5 would keep showing its old state.
        last = self._last if count else None
        made_of = self._ncomplete, count, last.source if last else None
        if made_of != self._made_of:
            parts = [*self._groups, *self._complete, *([last.written()] if last else [])]
            self._series = JoinedSource(parts) if len(parts) > 1 else parts[0]
            self._made_of = made_of
        return self._series

    def _open_new(self, ended: bool) -> None:
        """Open the last file again if it has changed, and the files that have followed it."""
        for _ in range(MOST_OPEN):
            if self._last is None and self._names:
                self._last = GrowingFile(self._names.popleft(), self._opener)
            if self._last is None:
                return
            self._last.look(ended)
            if not self._names:
                return
            count = self._last.count(ended=True)
            self._last.warn_of_others()
            if count:
                self._add(self._last.written(), count)
            self._last = None

    def _add(self, source: Source, count: int) -> None:
        """Add a file that is complete."""
        source.release()
        self._complete.append(source)
        self._ncomplete += count
        if len(self._complete) == MOST_OPEN:
            self._groups.append(JoinedSource(self._complete))
            self._complete = []

    def release(self) -> None:
        """Close all files that an image was made of: a writer may want to open one again."""
        for source in (*self._groups[-3:], *self._complete):
            source.release()
        if self._last is not None:
            self._last.release()

    def warn_of_others(self) -> None:
        """Warn of frames that the shape of an array promises, and that were not written."""
        if self._last is not None:
            self._last.warn_of_others()


class GrowingFile:
    """A file with the frames that are written by now; it is opened again whenever it has changed.

    Parameters
    ----------
    name : Name
    opener : Opener
    """

    def __init__(self, name: Name, opener: Opener) -> None:
        self._name, self._opener = name, opener
        self.source: Source | None = None
        """the file as it was opened last"""
        self._growth = Growth(0, 0)
        self.counted = 0
        """frames"""
        self._paths: tuple[Path, ...] = (Path(name.file),)
        self._marks: Marks = []
        self._opened = 0.0
        self._number: int | None = None
        self._digests: dict[int, bytes] = {}
        """of frames that were complete at the last look"""
        self._replaced: ReplacedFileError | None = None

    def look(self, ended: bool = False) -> None:
        """Open the file if it may have changed; errors are those of files that are incomplete.

        One that was replaced is an error from then on: it may be as long as before once more.
        """
        if self._replaced is not None:
            raise self._replaced
        marks = [mark_of(path) for path in self._paths]
        newest = max((mark[0] for mark in marks if mark is not None), default=0) / 1e9
        settled = newest < self._opened - CLOCK_TICK
        if self.source is not None and settled and marks == self._marks and not ended:
            return
        # HDF5 gives the state of a file that is still open in this process.
        self.release()
        self._opened = time.time()
        source = self._opener.open(self._name)
        growth = Growth(len(source), len(source))
        if isinstance(source, FileSource):
            growth, self._paths = source.growth(), source.growing_paths()
        try:
            self._check_same(source, growth)
        except ReplacedFileError:
            source.release()  # the error keeps it alive, and its writer may want to open it
            raise
        self._growth, self.source = growth, source
        self._marks = [mark_of(path) for path in self._paths]

    def _check_same(self, source: Source, growth: Growth) -> None:
        """Refuse another file in the place of one with frames that have been counted."""
        number = Path(self._name.file).stat().st_ino
        holds_several = isinstance(source, FileSource) and source.has_datasets
        if self.counted and holds_several and self._number not in (None, number):
            self._refuse("it is not the same file")
        if growth.begun < self.counted:
            self._refuse(f"it has {growth.begun} now")
        self._number = number
        if isinstance(source, FileSource):
            # The growth was read before: a file that is replaced in between is noticed here.
            self._check_digests(source, growth.certain)

    def _check_digests(self, source: FileSource, certain: int) -> None:
        """Refuse a file that was written anew, and has more frames again already.

        Compared are bytes of the first frame, and of the newest that are not written once more.
        """
        for index, before in self._digests.items():
            if source.digest_of_frame(index) != before:
                self._refuse(f"frame {index} is another one")
        digests: dict[int, bytes] = {}
        for index in {0, max(0, certain - source.frame_unit)} if certain else ():
            digest = self._digests.get(index) or source.digest_of_frame(index)
            if digest is not None:
                digests[index] = digest
        self._digests = digests

    def _refuse(self, why: str) -> NoReturn:
        self._replaced = ReplacedFileError(
            f"{self._name} was replaced by another one after {self.counted} of its frames had been "
            f"counted: {why}"
        )
        raise self._replaced

    def release(self) -> None:
        """Close the file."""
        if self.source is not None:
            self.source.release()

    def count(self, total: int = 0, ended: bool = False) -> int:
        """Return the number of frames that are written, as of `GrowingFiles.look`."""
        certain, begun, fill, whole = self._growth
        if self.source is not None and certain < begun:
            if ended:
                certain = last_with_values(self.source, certain, begun, fill)
            elif whole and certain < total <= begun and self._has_values(total - 1):
                certain = total
        self.counted = max(self.counted, certain)
        return self.counted

    def _has_values(self, index: int) -> bool:
        """Whether a frame holds anything but the fill value."""
        assert self.source is not None, "it has not been opened"
        fill = self._growth.fill
        return last_with_values(self.source, index, index + 1, fill) > index

    def written(self) -> Source:
        """Return the series of the frames that were counted."""
        assert self.source is not None, "it has not been opened"
        if self.counted == len(self.source) == self._growth.certain:
            return self.source
        return WrittenSource(self.source, self.counted)

    def warn_of_others(self) -> None:
        """Warn of frames that are not counted: nothing was written for them."""
        if self.source is not None and self.counted < len(self.source):
            warn(
                f"{self._name} has {len(self.source)} frames, of which the first {self.counted} "
                f"count: the others hold nothing but the fill value"
            )


def without_traceback(error: Exception) -> Exception:
    """Return an error that keeps no objects alive, such as open files."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def mark_of(path: Path) -> tuple[int, ...] | None:
    """Return time, size and number of a file or directory, None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def checked_name(text: str) -> Name:
    """Return a name of files on this machine."""
    name = parse(text)
    if is_url(name.file):
        raise ValueError(
            f"{without_secrets(text)} is an address, and only files and folders can be followed"
        )
    if name.frames is not None:
        raise ValueError(f"{text} selects frames: all frames of a series are followed")
    return name


class Place:
    """Where files appear: a folder, a pattern, or the name of one file.

    Parameters
    ----------
    name : Name
    opener : Opener
        Knows the suffixes of files.
    without : Path, optional
        A file that is left out.
    """

    def __init__(self, name: Name, opener: Opener, without: Path | None = None) -> None:
        self._name, self._suffix_of, self._without = name, opener.suffix_of, without
        self._path = Path(name.file)
        self._pattern = self._path.name if glob.has_magic(self._path.name) else ""
        self._folder = self._path.parent if self._pattern else self._path
        self._suffix: str | None = None
        self._one = False
        self._seen: set[str] = set()
        self._newest: Key = ((), "")
        self._mark: tuple[int, ...] | None = None
        self._listed = 0.0

    def new_names(self) -> list[Name]:
        """Return the files that have appeared since the last call, in natural order.

        Raises
        ------
        FileNotFoundError
            If there has been none yet.
        ValueError
            If a folder has two kinds of files equally often.
        """
        if self._one:
            return []
        if not self._seen:
            every = expand(self._name, self._suffix_of, self._output())
            if not Path(every[0].file).exists():
                raise FileNotFoundError(f"there is no file {every[0]}")
            self._suffix, self._one = self._suffix_of(every[0].file), every == [self._name]
            new = [str(Path(each.file)) for each in every]
        else:
            new = sorted(filter(self._is_new, self._listing()), key=natural)
        self._seen.update(new)
        if new and natural(new[0]) < self._newest:
            warn(f"{new[0]} has appeared after a file that follows it in natural order")
        self._newest = max([self._newest, *map(natural, new[-1:])])
        return [self._name._replace(file=file) for file in new]

    def _listing(self) -> Iterable[str]:
        """Return the files in the folder; none if nothing has been added since the last time."""
        if glob.has_magic(str(self._folder)):
            found = glob.glob(self._name.file, recursive=True)  # noqa: PTH207 (of any pattern)
            return [str(Path(file)) for file in found]
        mark, now = mark_of(self._folder), time.time()
        settled = mark is not None and mark[0] / 1e9 < self._listed - CLOCK_TICK
        if settled and mark == self._mark:
            return []
        self._mark, self._listed = mark, now
        # Names as `Path` writes them, in a tenth of the time.
        before = "" if self._folder == Path() else f"{self._folder}{os.sep}"
        return [before + name for name in os.listdir(self._folder)]  # noqa: PTH208

    def _is_new(self, file: str) -> bool:
        if file in self._seen:
            return False
        name = file.rpartition(os.sep)[2]
        wanted = self._suffix_of(name) == self._suffix or glob.has_magic(str(self._folder))
        if self._pattern:
            wanted = fnmatch(name, self._pattern)
        return wanted and not name.startswith(".") and not same_file(Path(file), self._output())

    def _output(self) -> Path | None:
        """Return the file that is left out, once it exists."""
        output = self._without
        return output if output is not None and output.exists() else None
