"""MNIST and Fashion-MNIST: found in a folder or downloaded there, and verified."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradstab.data.dataset import Dataset, class_entropy
from gradstab.data.download import DownloadError, download
from gradstab.data.idx import (
    announced_size,
    check_sum,
    decode_idx,
    gunzipped,
    read_file,
)
from gradstab.errors import UserValueError

NUM_VAL = 5000  # the last of the training images
MOST = 1 << 26  # bytes of a file whose size is not known

_SIZES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 784,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 784,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}


@dataclass(frozen=True)
class Source:
    """Where a data set of the MNIST family is published, and how to know it."""

    mirrors: tuple[str, ...]
    checksums: dict[str, str]  # file name -> checksum of its decompressed content
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of that content

    def most(self, file: str, /) -> int:
        """Bytes that the content of a file can have, and a compressed form of it."""
        return self.sizes.get(file, MOST)

    def is_weak(self, file: str, /) -> bool:
        """Whether a checksum is one that can be forged, so that https must vouch."""
        return self.checksums[file].startswith("md5:")


# SHA-256, but for Fashion-MNIST's images the MD5 under which they are known. All are of
# the decompressed content: the same images are published in several compressions.
SOURCES = {
    "mnist": Source(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        checksums={
            "train-images-idx3-ubyte": "sha256:"
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "sha256:"
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "sha256:"
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "sha256:"
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        sizes=_SIZES,
    ),
    "fashion-mnist": Source(
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        checksums={
            "train-images-idx3-ubyte": "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "sha256:"
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "md5:8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "sha256:"
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        sizes=_SIZES,
    ),
}


def mnist_family(name: str, folder: Path, /, *, may_download: bool = True) -> Dataset:
    """The 28 x 28 images of a data set in `SOURCES`, scaled from 0..255 to [0, 1].

    The files' order is kept; the last 5,000 training images are the validation set, so
    55,000 train, 5,000 validate and 10,000 test. 220 MB of float32 in all.

    Args:
        name: of a data set in `SOURCES`.
        folder: the four IDX files, each plain or ``.gz``, are looked for in its
            subfolder of the data set's name, then in itself. What is missing is
            downloaded to the subfolder. A file of another data set in `SOURCES` is
            passed over.
        may_download: if not, a missing file is an error at once.

    Raises:
        FileNotFoundError: a file is in neither place and could not be downloaded.
        ValueError: a file is damaged or not the published one.

    References:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to
        document recognition. Xiao, Rasul and Vollgraf (2017), Fashion-MNIST.
    """
    train_images, train_labels, test_images, test_labels = (
        _read(name, file, folder, may_download) for file in SOURCES[name].checksums
    )
    x, y = _scaled(train_images), train_labels.astype(np.int32)
    return Dataset(
        x_train=x[:-NUM_VAL],
        y_train=y[:-NUM_VAL],
        x_val=x[-NUM_VAL:],
        y_val=y[-NUM_VAL:],
        x_test=_scaled(test_images),
        y_test=test_labels.astype(np.int32),
        name=name,
        task="classification",
        num_outputs=10,
        image_shape=train_images.shape[1:],
        baseline=class_entropy(y[:-NUM_VAL]),
        baseline_answer="the class frequencies of the training set",
    )


def _read(name: str, file: str, folder: Path, may_download: bool, /) -> np.ndarray:
    for path in _candidates(name, file, folder):
        content = b""
        try:
            content = read_file(path, most=SOURCES[name].most(file))
            return _verified(content, path, name, file)
        except ValueError as error:
            # A folder that holds MNIST is no obstacle to Fashion-MNIST beside it.
            if not _is_of_another(name, file, content):
                raise UserValueError(
                    f"{error}. {_advice(name, path, folder)}"
                ) from error
    path = _fetch(name, file, folder, may_download)
    content = read_file(path, most=SOURCES[name].most(file))
    return _verified(content, path, name, file)


def _candidates(name: str, file: str, folder: Path, /) -> list[Path]:
    places = (folder / name / file, folder / file)
    paths = [p for place in places for p in (place, place.with_name(file + ".gz"))]
    return [path for path in paths if path.is_file()]


def _is_of_another(name: str, file: str, content: bytes, /) -> bool:
    for other in SOURCES:
        if other != name:
            try:
                _verified(content, other, other, file)
            except ValueError:
                continue
            return True
    return False


def _advice(name: str, path: Path, folder: Path, /) -> str:
    if path.parent == folder / name:
        return "Delete it, and it is downloaded again, or put the published one there"
    return (
        "If it is damaged, delete it; if it belongs to another data set, put those of "
        f"{name} in {folder / name}, which is looked in first"
    )


def _fetch(name: str, file: str, folder: Path, may_download: bool, /) -> Path:
    source = SOURCES[name]
    path = folder / name / f"{file}.gz"
    try:
        if not may_download:
            raise DownloadError("downloading is switched off")
        download(
            source.mirrors,
            path,
            verify=lambda content, address: _verified(content, address, name, file),
            most=source.most(file),
            encrypted=source.is_weak(file),
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{name} needs its file {file} (plain or .gz), which is neither in "
            f"{folder / name} nor in {folder}, and it was not downloaded: {error}. "
            f"Fetch {', '.join(f'{f}.gz' for f in source.checksums)} from "
            f"{source.mirrors[0]} into {folder / name} by hand, or name the folder "
            "that has them with data_dir= or the environment variable GRADSTAB_DATA_DIR"
        ) from error
    return path


def _verified(content: bytes, source: Path | str, name: str, file: str, /):
    """The array in a file, if it is the published one.

    The sizes come first: what is too long is not decompressed.
    """
    most = SOURCES[name].most(file)
    size = announced_size(content)
    if size > most:
        raise UserValueError(
            f"{source} is damaged gzip data or not the published file: it announces "
            f"{size} bytes of content, expected at most {most}"
        )
    plain = gunzipped(content, source, most=most)
    if len(plain) > most:
        raise UserValueError(
            f"{source} is not the published file: its content is longer than {most} "
            "bytes"
        )
    array = decode_idx(plain, source)
    check_sum(plain, SOURCES[name].checksums[file], source)
    return array


def _scaled(images: np.ndarray, /) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
