"""Clerk, as far as usersync talks to it: an emulator for the demo and the tests.

It answers the part of the Backend API that is in use, with its limits and its error bodies, and sends
webhooks signed for real. It never stands in for Clerk in production: nothing but the demo and the tests
imports it, it listens on the loopback address only, and its users are made up.
"""

from __future__ import annotations

from controller.emulator.faults import Endpoint, Fault, FaultName
from controller.emulator.server import ClerkEmulator, EmulatorSettings
from controller.emulator.webhooks import Delivery, DeliveryFault, DeliveryFaultName, WebhookSettings

__all__ = [
    "ClerkEmulator",
    "Delivery",
    "DeliveryFault",
    "DeliveryFaultName",
    "EmulatorSettings",
    "Endpoint",
    "Fault",
    "FaultName",
    "WebhookSettings",
]
