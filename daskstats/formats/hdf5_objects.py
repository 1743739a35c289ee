"""Open objects of h5py and of nexusformat; where they are sent, their files are opened again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..packages import loaded
from ..series.base import Choice, Source
from ..series.files import FileSource, restore
from ..series.foreign import is_a
from .hdf5 import Hdf5Source, checked
from .hdf5_files import absolute
from .hdf5_links import follow
from .hdf5_lock import hdf5_lock
from .hdf5_search import find_datasets

if TYPE_CHECKING:
    import h5py


DATASET = "h5py", "Dataset"


class Hdf5ObjectSource(Hdf5Source):
    """A series in open files."""

    def _set_datasets(self, datasets: Sequence[h5py.Dataset], why: str = "given") -> None:
        """Take over open datasets."""
        paths = tuple(absolute(dataset.file) for dataset in datasets)
        names = tuple(dataset.name for dataset in datasets)
        if None in names:
            raise ValueError("the dataset has no name in its file, and cannot be opened again")
        FileSource.__init__(self, paths[0], dataset=names)
        self.choice = Choice(names, why)
        if len(set(paths)) > 1:
            self.apart_files = paths
            self.parameters["files"] = tuple(map(str, paths))
        self.parameters["dtype"] = str(self.converted)
        parts = [checked(dataset, path) for dataset, path in zip(datasets, paths, strict=True)]
        self._set_parts(parts, list(paths))

    def __dask_tokenize__(self) -> tuple:
        # A file in memory has a name but no fingerprint.
        return (FileSource if self._is_there() else Source).__dask_tokenize__(self)

    def _is_there(self) -> bool:
        return all(path.is_file() for path in self.apart_files or (self.path,))

    def __reduce__(self) -> tuple:
        if not self._is_there():
            raise TypeError(
                f"dataset {self.choice.names[0]!r} is not in a file that can be opened again: "
                f"save it to a file and give its path"
            )
        return restore, (Hdf5Source, self.__getstate__())


class Hdf5DatasetSource(Hdf5ObjectSource):
    """An open h5py dataset."""

    opens = (DATASET,)

    def __init__(self, dataset: h5py.Dataset) -> None:
        with hdf5_lock():
            self._set_datasets([dataset])


class Hdf5ListSource(Hdf5ObjectSource):
    """A list of open h5py datasets, one after the other; one of two dimensions is one frame."""

    def __init__(self, datasets: Sequence[h5py.Dataset]) -> None:
        for index, dataset in enumerate(datasets):
            if not is_a(dataset, *DATASET):
                raise ValueError(
                    f"a list of h5py datasets holds nothing else: item {index} is a "
                    f"{type(dataset).__name__}"
                )
        with hdf5_lock():
            self._set_datasets(datasets)

    @classmethod
    def accepts(cls, ims: object) -> bool:
        return isinstance(ims, list | tuple) and bool(ims) and is_a(ims[0], *DATASET)


class Hdf5GroupSource(Hdf5ObjectSource):
    """An open h5py group or file: the series in it."""

    opens = (("h5py", "Group"),)

    def __init__(self, group: h5py.Group) -> None:
        with hdf5_lock():
            path, name = absolute(group.file), group.name
            choice = find_datasets(group, path, "" if name == "/" else name)
            found = [follow(group.file, name) for name in choice.names]
            self._set_datasets([dataset for dataset, _ in found], choice.why)


class Hdf5ConvertedSource(Hdf5ObjectSource):
    """A view ``dataset.astype(dtype)``: the library converts while it reads."""

    opens = tuple(("h5py._hl.dataset", name) for name in ("AsTypeView", "AstypeWrapper"))

    def __init__(self, view: h5py.Dataset) -> None:
        with hdf5_lock():
            self.converted = view._dtype
            self._set_datasets([view._dset])


class NexusFieldSource(Hdf5Source):
    """A field of nexusformat that is in a file; of one in memory its array is taken."""

    def __init__(self, field: Any) -> None:
        if field.mask is not None:
            raise TypeError(
                f"the field {field.nxname!r} has a mask, which is an array of its own: give its "
                f".nxdata.filled(value) with a value that no pixel has, and invalid=value"
            )
        super().__init__(field.nxfilename, field.nxfilepath)

    @classmethod
    def accepts(cls, ims: object) -> bool:
        field = loaded("nexusformat.nexus", "NXfield")
        # A test double of the class has attributes of any kind.
        return field is not None and issubclass(type(ims), field) and _is_stored(ims)


def _is_stored(field: Any) -> bool:
    """Whether a field is in a file, with the values that it has here."""
    return bool(field.nxfilename and field.nxfilepath and field.file_exists())
