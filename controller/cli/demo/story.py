"""What the demo tells: sign-ups, lost and repeated webhooks, edits by hand, deletions, a Clerk that lies.

Decides the chapters and what must be seen in each; the story ends with the first promise that is not. Knows
nothing of where it is played.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from controller.cli.demo.application import END_ACCOUNT, ORIGIN, TABLES
from controller.cli.demo.narrator import PATIENCE_SECONDS
from controller.cli.demo.stage import PromiseBroken
from controller.emulator import DeliveryFault, DeliveryFaultName, Endpoint, Fault, FaultName

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from controller.cli.demo.narrator import Narrator
    from controller.cli.demo.stage import Stage
    from controller.cli.reports import Document
    from controller.emulator.events import Message

FIRST_USERS = 60
"""From 50 users with rows the limit in percent counts, as it does in earnest."""
FOREIGN = "system"
_ABSENT = dict.fromkeys(TABLES, 0)


class Story:
    """One telling of it; `user` names are those of its persons."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        self._stage = stage
        self._narrator = narrator
        self._clerk = stage.clerk
        self._application = stage.application

    async def tell(self) -> None:
        """Tell all chapters.

        Raises:
            PromiseBroken: something promised was not seen.
        """
        await self._first_run()
        ada, grace = await self._sign_ups()
        await self._repeated()
        await self._lost_and_edited()
        await self._deleted_unheard()
        await self._deleted(ada)
        await self._replayed(ada)
        await self._own_request(grace)
        await self._lies()
        await self._mass_deletion()

    async def _first_run(self) -> None:
        narrator = self._narrator
        await narrator.chapter("An instance of Clerk with users, and a database that knows none of them")
        users = list(self._clerk.users)
        narrator.say(f"{len(users)} users have signed up over the years; the four tables are empty.")
        narrator.command(self._stage.begin_command)
        report = self._heard(await self._stage.begin())
        narrator.expect("every user has a profile row now", report["changes"]["profilesCreated"], len(users))
        narrator.say("They use the application, which writes tasks, check-ins and moods for them.")
        await self._application.use(users)
        report = await self._run()
        narrator.expect("the next run finds nothing to do", report["drift"]["total"], 0)

    async def _sign_ups(self) -> tuple[str, str]:
        narrator = self._narrator
        await narrator.chapter("Users sign up: Clerk's webhook is the fast way")
        signed_up = []
        for name in ("Ada", "Grace", "Linus"):
            user = self._clerk.sign_up()
            seconds = await narrator.wait_for(f"{name}'s profile", partial(self._profiles, user), 1)
            narrator.saw(f"{name} signed up, and has a profile row {seconds * 1000:.0f} ms later")
            signed_up.append(user)
        await self._application.use(signed_up)
        return signed_up[0], signed_up[1]

    async def _repeated(self) -> None:
        narrator = self._narrator
        await narrator.chapter("The same message five times at once")
        webhooks = self._clerk.webhooks
        webhooks.switch_on(DeliveryFault(DeliveryFaultName.DUPLICATE, copies=5))
        user = self._clerk.sign_up()
        await self._settle()
        message = self._message("user.created", user)
        received = sum(each.succeeded for each in webhooks.deliveries if each.message_id == message.id)
        narrator.expect("all five deliveries are acknowledged", received, 5)
        narrator.expect("they have one effect: one profile row", await self._profiles(user), 1)
        await self._application.use([user])

    async def _lost_and_edited(self) -> None:
        narrator = self._narrator
        await narrator.chapter("Webhooks get lost, and people edit rows by hand")
        self._clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.LOSE, times=2))
        lost = [self._clerk.sign_up() for _ in range(2)]
        narrator.say("Two users sign up, and the webhooks never arrive.")
        first, second, *_ = self._clerk.users
        await self._application.lose_profile(first)
        await self._application.double_profile(second)
        await self._application.add_foreign_row(FOREIGN)
        narrator.say(f"Somebody deletes a profile row, doubles another, and writes a task for '{FOREIGN}'.")
        report = await self._analyze()
        narrator.expect("three profiles are missing", report["drift"]["missingProgress"], 3)
        narrator.expect("one profile is there twice", report["drift"]["duplicates"], 1)
        await self._run()
        for user in (*lost, first, second):
            await self._expect_profile(user)
        narrator.saw("each of them has exactly one profile row again")
        narrator.expect(f"the row of '{FOREIGN}' is none of ours", (await self._rows(FOREIGN))["tasks"], 1)
        await self._application.use(lost)

    async def _deleted_unheard(self) -> None:
        narrator = self._narrator
        await narrator.chapter("Users are deleted, and the webhooks get lost")
        gone = list(self._clerk.users)[10:13]
        rest = await self._row_counts_without(gone)
        self._clerk.webhooks.switch_on(DeliveryFault(DeliveryFaultName.LOSE, times=len(gone)))
        self._clerk.delete_many(gone)
        report = await self._analyze()
        narrator.expect("three users with rows are gone from Clerk", report["drift"]["orphaned"], len(gone))
        report = await self._run()
        narrator.expect("each was proved gone and removed", report["changes"]["usersRemoved"], len(gone))
        narrator.expect("nobody else lost a row", await self._application.row_counts(), rest)

    async def _deleted(self, user: str) -> None:
        narrator = self._narrator
        await narrator.chapter("Ada is deleted at Clerk")
        rows = await self._rows(user)
        narrator.say(f"She has {sum(rows.values())} rows in {sum(map(bool, rows.values()))} tables.")
        self._clerk.delete(user)
        seconds = await narrator.wait_for("her rows are gone", partial(self._rows, user), _ABSENT)
        narrator.saw(f"user.deleted arrived, Clerk confirmed it, all tables are empty of her: {seconds * 1000:.0f} ms")

    async def _replayed(self, user: str) -> None:
        narrator = self._narrator
        await narrator.chapter("Deleted stays deleted")
        message = self._message("user.created", user)
        narrator.say("Her user.created comes once more, late; and somebody sends a new one about her.")
        self._clerk.webhooks.replay(message.id)
        copy = type(message)(f"{message.id}again", message.event_type, message.body)
        self._clerk.webhooks.post(copy)
        await self._settle()
        received = {each.message_id for each in self._clerk.webhooks.deliveries if each.succeeded}
        narrator.expect("both are acknowledged", {message.id, copy.id} <= received, wanted=True)
        narrator.expect("and change nothing: her tombstone stands", await self._rows(user), _ABSENT)

    async def _own_request(self, user: str) -> None:
        narrator = self._narrator
        await narrator.chapter("Grace ends her account herself, on the application's page")
        narrator.command(f"DELETE {END_ACCOUNT}   (her browser, with Clerk's session token)")
        sessions = self._clerk.sessions
        stale = sessions.token(user, ORIGIN, fva=[60, -1])
        status, content = await self._application.end_account(self._stage.service_url, stale)
        narrator.expect(
            "signed in an hour ago, she has to prove that it is she",
            (status, content.get("clerk_error", {}).get("reason")),
            (403, "reverification-error"),
        )
        began = time.monotonic()
        status, _ = await self._application.end_account(self._stage.service_url, sessions.token(user, ORIGIN))
        narrator.expect("having done so, she is heard", status in {200, 202}, wanted=True)
        await narrator.wait_for("her rows are gone", partial(self._rows, user), _ABSENT)
        seconds = time.monotonic() - began
        narrator.saw(f"deleted at Clerk first, then erased here, the archive included: {seconds * 1000:.0f} ms")
        narrator.expect("Clerk knows her no more", user in self._clerk.users, wanted=False)

    async def _lies(self) -> None:
        narrator = self._narrator
        await narrator.chapter("Clerk lies")
        before = await self._application.row_counts()
        everybody = frozenset(self._clerk.users)
        narrator.say("It lists nobody, and counts nobody: an outage, or the key of an empty instance.")
        await self._expect_blocked("EmptySource", everybody, (Endpoint.LIST, Endpoint.COUNT), before)
        five = frozenset(list(self._clerk.users)[20:25])
        gone = list(self._clerk.users)[30]
        narrator.say("It leaves five living users out of the list, and its count agrees. One user really is gone.")
        self._clerk.delete(gone, webhook=False)
        await self._expect_blocked("PartialSource", five, (Endpoint.LIST, Endpoint.COUNT), before)
        narrator.say("It hides the five from the second look too; only the question by id is answered rightly.")
        rest = await self._row_counts_without([gone])
        self._hide(five, (Endpoint.LIST, Endpoint.COUNT, Endpoint.FILTER))
        report = await self._run()
        self._clerk.faults.clear()
        narrator.expect("the one who is gone is removed", report["changes"]["usersRemoved"], 1)
        narrator.expect(
            "the five have all their rows, and so has everybody", await self._application.row_counts(), rest
        )
        report = await self._run()
        narrator.expect("Clerk recovers, and all is in sync", report["drift"]["total"], 0)

    async def _mass_deletion(self) -> None:
        narrator = self._narrator
        await narrator.chapter("A mass deletion stops and asks")
        before = await self._application.row_counts()
        gone = list(self._clerk.users)[:12]
        rest = await self._row_counts_without(gone)
        self._clerk.delete_many(gone, webhook=False)
        narrator.say("Somebody deletes twelve users at once, and no webhook tells: more than may go in a day.")
        pending = (await self._run()).get("pendingDeletion", {})
        narrator.expect(
            "the set is held back", (pending.get("reason"), pending.get("users")), ("ThresholdExceeded", 12)
        )
        narrator.expect("nothing is deleted", await self._application.row_counts(), before)
        narrator.say("A person looks at them, and approves just this set.")
        narrator.command(self._stage.approve_command.replace("DIGEST", pending["digest"]))
        report = self._heard(await self._stage.approve(pending["digest"]))
        narrator.expect("the twelve are removed", report["changes"]["usersRemoved"], len(gone))
        narrator.expect("nobody else lost a row", await self._application.row_counts(), rest)

    async def _expect_blocked(
        self, reason: str, hidden: frozenset[str], endpoints: Collection[Endpoint], before: dict[str, int]
    ) -> None:
        narrator = self._narrator
        self._hide(hidden, endpoints)
        report = await self._run()
        self._clerk.faults.clear()
        narrator.expect(f"the reason is given: {reason}", report.get("pendingDeletion", {}).get("reason"), reason)
        narrator.expect("nothing is deleted", await self._application.row_counts(), before)

    def _hide(self, users: frozenset[str], endpoints: Collection[Endpoint]) -> None:
        for endpoint in endpoints:
            self._clerk.switch_on(Fault(FaultName.HIDE_USERS, endpoint=endpoint, ids=users))

    async def _settle(self) -> None:
        """Wait until no webhook is on its way."""
        try:
            await self._clerk.webhooks.settle(PATIENCE_SECONDS)
        except TimeoutError as error:
            last = self._clerk.webhooks.deliveries[-1:]
            message = f"the webhooks were not received within {PATIENCE_SECONDS:g} s; the last delivery: {last}"
            raise PromiseBroken(message) from error

    async def _run(self) -> Document:
        """Let the controller run, and say what it did."""
        self._narrator.command(self._stage.run_command)
        return self._heard(await self._stage.run_now())

    def _heard(self, report: Document) -> Document:
        if "error" in report:
            message = f"The run failed, {report['error']['reason']}: {report['error']['message']}"
            raise PromiseBroken(message)
        self._narrator.say(f"controller: {report['lastRun']['message']}")
        return report

    async def _analyze(self) -> Document:
        self._narrator.command("$ usersync analyze")
        report = await self._stage.analyze()
        self._narrator.show(report)
        return report

    async def _rows(self, user: str) -> dict[str, int]:
        return await self._application.rows_of(user)

    async def _row_counts_without(self, users: Iterable[str]) -> dict[str, int]:
        """Count the rows that there would be without these users."""
        counts = await self._application.row_counts()
        for user in users:
            for table, rows in (await self._rows(user)).items():
                counts[table] -= rows
        return counts

    async def _profiles(self, user: str) -> int:
        return (await self._rows(user))["user_progress"]

    async def _expect_profile(self, user: str) -> None:
        profiles = await self._profiles(user)
        if profiles != 1:
            message = f"one profile row for each was promised, {profiles} were seen"
            raise PromiseBroken(message)

    def _message(self, event_type: str, user: str) -> Message:
        """Find the newest message about a user."""
        for message in reversed(self._clerk.webhooks.messages):
            if message.event_type == event_type and user.encode() in message.body:
                return message
        nothing = f"no {event_type} was sent"
        raise PromiseBroken(nothing)
