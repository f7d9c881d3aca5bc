"""Runs an emulator as a program of its own: ``python -m controller.emulator --users 100``.

Prints one line of JSON as soon as it listens (url, secret_key, instance_id, environment, webhook_secret,
users), then stays until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import msgspec

from controller.core.users import Environment
from controller.emulator.control import ControlAPI
from controller.emulator.server import DEFAULT_RATE_LIMIT, ClerkEmulator, EmulatorSettings
from controller.emulator.webhooks import WebhookSettings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller.emulator", description="Emulate a Clerk instance.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--users", type=int, default=0, help="how many have signed up before it starts")
    parser.add_argument("--seed", type=int, default=0, help="ids, names and keys follow from it")
    parser.add_argument("--environment", choices=[each.value for each in Environment], default="development")
    parser.add_argument("--rate-limit", type=int, default=DEFAULT_RATE_LIMIT, help="requests per 10 s; 0 for none")
    parser.add_argument("--webhook-url", help="where to send events")
    parser.add_argument("--webhook-compression", type=float, default=1.0, help="divides the waits between attempts")
    return parser


async def _run(settings: EmulatorSettings, users: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with ClerkEmulator(settings, users=users) as emulator:
        sys.stdout.write(msgspec.json.encode(ControlAPI(emulator).state()).decode() + "\n")
        sys.stdout.flush()
        await ended.wait()


def main(arguments: list[str] | None = None) -> None:
    """Run until a signal ends it."""
    given = _parser().parse_args(arguments)
    settings = EmulatorSettings(
        seed=given.seed,
        port=given.port,
        environment=Environment(given.environment),
        rate_limit=given.rate_limit or None,
        webhooks=WebhookSettings(url=given.webhook_url, compression=given.webhook_compression),
    )
    asyncio.run(_run(settings, given.users))


if __name__ == "__main__":
    main()
