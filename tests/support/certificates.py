"""Made-up certificate authorities and servers' certificates, by the openssl of the machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    @property
    def text(self) -> str:
        """The certificate in PEM form."""
        return self.certificate.read_text()


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of a test's own, in a folder of its own."""

    folder: Path
    own: Certificate

    @classmethod
    def made(cls, folder: Path, name: str = "ca") -> Authority:
        """Make one."""
        own = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        added = [word for extension in extensions for word in ("-addext", extension)]
        _openssl(
            "req", "-x509", *_new_key(own.key), "-out", own.certificate, "-days", "2", "-subj", f"/CN={name}", *added
        )
        return cls(folder, own)

    def issue(self, *, host: str = "", ip: str = "", days: int = 2) -> Certificate:
        """Make a certificate for a server of that name or address; it has run out with days = 0."""
        name = host or ip
        issued = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request, names = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        names.write_text(f"subjectAltName={f'DNS:{host}' if host else f'IP:{ip}'}\n")
        _openssl("req", *_new_key(issued.key), "-out", request, "-subj", f"/CN={name}")
        signed_by = ("-CA", self.own.certificate, "-CAkey", self.own.key, "-CAcreateserial")
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            *signed_by,
            "-days",
            str(days),
            "-extfile",
            names,
            "-out",
            issued.certificate,
        )
        return issued


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
