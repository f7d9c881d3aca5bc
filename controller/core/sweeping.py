"""One run over everything: list Clerk, observe the database, plan, apply, report.

Decides the order and gathers the proofs; the rules are in `planning`, the statements in the store. Used
by `reconciler` and `cli`, through `runtime`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from controller.core.approving import SetDigest, set_header
from controller.core.contact import establish
from controller.core.outcomes import Changes, Outcome, Reduction, Removal, Updating
from controller.core.planning import plan
from controller.core.plans import (
    Change,
    CreateProfiles,
    HeldBack,
    HoldReason,
    Plan,
    ReduceDuplicates,
    RemoveUsers,
    UpdateProfiles,
)
from controller.core.ports import Phase, RunLabel
from controller.core.proofs import Proof
from controller.core.proving import prove_absence
from controller.core.removals import RemovalTerms
from controller.core.securing import secure
from controller.core.suspects import Suspects, Terms
from controller.core.targets import Action, DeletionPolicy
from controller.core.updating import REFUSED, update_profiles
from controller.errors import ClerkAnswerOdd

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    from controller.core.drift import Drift
    from controller.core.ports import Clock, Directory, Run, Store, Watcher
    from controller.core.targets import Policy, Spec
    from controller.core.users import UserId

CREATED_MEANWHILE = timedelta(minutes=10)
"""Users created later than this before the listing began may be missing from it with no harm meant;
wide enough for the two clocks to differ."""
LOOK_UPS_AT_ONCE = 10
"""Bounds the age of the oldest proof of a batch where the rate share is tiny: ten look-ups, not 500."""
SECOND_LOOK_AT_MOST = 10_000
"""Users asked for in the second look; where more are missing, each is still asked for before his own removal."""
REMOVAL_BATCH = 500
REMOVAL_BATCH_AGE = timedelta(minutes=1)
"""A batch is carried out once its oldest proof is this old, full or not."""


ALIVE_UNFINISHED = (
    "The removal of {} user(s) with very many rows had begun, and now Clerk answers that they live: nothing more of "
    "them is removed. What was archived can be put back beside the rows that stayed, by usersync restore."
)


@dataclass(frozen=True, slots=True)
class Sweeper:
    """What a run works with: Clerk, the database, time, and who watches."""

    directory: Directory
    store: Store
    clock: Clock
    watcher: Watcher

    async def sweep(self, spec: Spec, *, holder: str) -> Outcome:
        """Do one run of `spec`. `holder` names this process in the lock and the audit.

        Raises:
            UserSyncError: the run failed; nothing more was changed from there on.
        """
        inspection = await self.store.inspect()
        instance = await establish(self.directory, self.store, named=spec.clerk.instance_id)
        policy = spec.policy()
        header = set_header(instance.id, spec.target, spec.deletion.policy)
        async with self.store.begin_run(RunLabel(spec.name, policy, instance, holder)) as run:
            started_at = self.clock.now()
            await self._list(run)
            found = await self._observe(run)
            contradicted, found = await self._look_again(run, found, started_at)
            suspects, refusal = await self._weigh(run, found, contradicted, spec, header)
            planned = plan(found, suspects, policy, inspection.unlisted_cascades)
            if planned.held_back is not None and planned.held_back.reason is HoldReason.THRESHOLD_EXCEEDED:
                planned = replace(planned, held_back=await self._hold(run, planned.held_back, header, refusal))
            await self._show(run)
            outcome = Outcome(
                run.id, found, found, planned, intended(planned), policy.dry_run,
                users_waiting=suspects.waiting, warnings=(*inspection.warnings, *run.misfits()),
            )  # fmt: skip
            if not policy.dry_run:
                outcome = await self._apply(run, outcome, spec, started_at - CREATED_MEANWHILE)
            outcome = replace(outcome, security=await secure(self.store, spec))
            closing = await run.finish(outcome)
        return replace(outcome, closing=closing)

    async def _weigh(
        self, run: Run, found: Drift, contradicted: int, spec: Spec, header: str
    ) -> tuple[Suspects, str | None]:
        """Weigh who is due, where the listing can be believed; the second answer is why an approval permits nobody."""
        if not found.clerk_users or contradicted:
            return Suspects(contradicted=contradicted), None
        terms = Terms(spec.deletion.grace_period, spec.longest_gap, spec.deletion.limits.window)
        return await run.weigh(terms, spec.approval, header)

    async def _hold(self, run: Run, held_back: HeldBack, header: str, refusal: str | None) -> HeldBack:
        digest = SetDigest(header)
        async with aclosing(run.due()) as batches:
            async for batch in batches:
                digest.add(batch)
        held = await run.hold(digest)
        reason = HoldReason.AWAITING_APPROVAL if held.seen_before else HoldReason.THRESHOLD_EXCEEDED
        words = [held_back.message, f"If this is right, approve the set {held.digest}.", refusal]
        return replace(
            held_back, reason=reason, message=" ".join(filter(None, words)), digest=held.digest, since=held.since
        )

    async def _list(self, run: Run) -> None:
        listed = 0
        # Closed at once when recording fails: else the requests under way would outlive the run.
        async with aclosing(self.directory.list_users()) as pages:
            async for page in pages:
                await run.record_listed([user.id for user in page])
                if self.directory.maps:
                    await run.record_values([user.profile for user in page if user.profile is not None])
                listed += len(page)
                self.watcher.advance(Phase.LIST, listed)

    async def _observe(self, run: Run) -> Drift:
        self.watcher.advance(Phase.OBSERVE, 0)
        drift = await run.observe()
        self.watcher.advance(Phase.OBSERVE, drift.users_with_rows)
        return drift

    async def _look_again(self, run: Run, found: Drift, started_at: datetime) -> tuple[int, Drift]:
        """Ask for the users missing from the listing by the `user_id` filter.

        Returns how many were found who should have been listed. Ends early once there is one, for nobody is
        deleted on such a listing. Those found are added to the desired set, and the drift is observed anew.
        """
        if found.clerk_users == 0:
            return 0, found
        contradicted = present = looked_at = 0
        async with aclosing(run.orphaned()) as batches:
            async for batch in batches:
                alive = await self.directory.find(batch)
                if alive:
                    await run.record_listed(list(alive))
                if alive and self.directory.maps:
                    await run.record_values(await self.directory.profiles(list(alive)))
                present += len(alive)
                contradicted += sum(created_at < started_at - CREATED_MEANWHILE for created_at in alive.values())
                looked_at += len(batch)
                self.watcher.advance(Phase.SECOND_LOOK, looked_at)
                if contradicted or looked_at >= SECOND_LOOK_AT_MOST:
                    break
        return contradicted, await run.observe() if present else found

    async def _show(self, run: Run) -> None:
        if not self.watcher.shows:
            return
        for kind, batches in (
            ("missing", run.missing()),
            ("outdated", run.outdated()),
            ("orphaned", run.orphaned()),
            ("duplicated", run.duplicated()),
        ):
            async for batch in batches:
                self.watcher.show(kind, batch)

    async def _apply(self, run: Run, outcome: Outcome, spec: Spec, settled_before: datetime) -> Outcome:
        changes = outcome.plan.changes
        declined = deletes(outcome.plan) and not await self.watcher.permit(outcome.plan)
        if declined:
            changes = tuple(change for change in changes if isinstance(change, CreateProfiles | UpdateProfiles))
        done = Changes()
        for change in changes:
            done = await self._carry_out(run, change, done, spec)
        updated = Updating()
        if self.directory.maps and Action.FIX_PROGRESS in spec.policy().actions:
            updated = await update_profiles(run, self.directory, self.watcher, settled_before)
            done = replace(done, profiles_updated=updated.users)
        alive = 0
        if not declined and finishes(outcome.plan, spec.policy()):
            done, alive = await self._finish_removals(run, done, spec)
        remaining = await run.observe() if changes or done != Changes() else outcome.found
        warnings = (
            *outcome.warnings,
            *([ALIVE_UNFINISHED.format(alive)] if alive else []),
            *([REFUSED.format(updated.users_left)] if updated.users_left else []),
        )
        return replace(outcome, remaining=remaining, changes=done, declined=declined, warnings=warnings)

    async def _carry_out(self, run: Run, change: Change, done: Changes, spec: Spec) -> Changes:
        match change:
            case CreateProfiles():
                return replace(done, profiles_created=await self._create_profiles(run))
            case UpdateProfiles():
                # After all others: whoever is in step is noted then too, so this is done without such a change as well.
                return done
            case RemoveUsers():
                approval = spec.approval if change.approved else None
                if approval is not None:
                    await run.approve(approval)
                terms = RemovalTerms.of(spec.deletion, change.permitted, approval)
                removal, spared = await self._remove_users(run, change, terms)
                # Where nobody could go, the very same set waits again, and would be approved in vain.
                if approval is not None and (removal.users or removal.users_unfinished):
                    await run.use_up(approval)
                return replace(
                    done,
                    users_removed=done.users_removed + removal.users,
                    rows_removed=done.rows_removed + removal.rows,
                    users_left=done.users_left + removal.users_left,
                    users_spared=done.users_spared + spared,
                )
            case ReduceDuplicates():
                reduction = await self._reduce_duplicates(run)
                return replace(done, duplicates_removed=reduction.rows, duplicates_left=reduction.users_left)
            case _:
                assert_never(change)

    async def _create_profiles(self, run: Run) -> int:
        created = 0
        async for batch in run.missing():
            created += await run.create_profiles(batch)
            self.watcher.advance(Phase.CREATE, created)
        return created

    async def _reduce_duplicates(self, run: Run) -> Reduction:
        reduction, users = Reduction(), 0
        async for batch in run.duplicated():
            reduction += await run.reduce_duplicates(batch)
            users += len(batch)
            self.watcher.advance(Phase.REDUCE, users)
        return reduction

    async def _remove_users(self, run: Run, change: RemoveUsers, terms: RemovalTerms) -> tuple[Removal, int]:
        """Prove each user gone and remove those that are; the number spared comes second.

        The users are those who were weighed: rows of others that arrive meanwhile wait for the next run.
        """
        removal, spared = Removal(), 0
        proofs: list[Proof] = []
        users = run.approved() if change.approved else run.due()
        async with aclosing(_in_groups(users, LOOK_UPS_AT_ONCE)) as groups:
            async for group in groups:
                proved, alive, unclear = await self._prove(group)
                proofs += proved
                spared += alive
                removal += Removal(users_left=unclear)
                if self._is_ready(proofs):
                    removal += await run.remove_users(proofs, terms)
                    proofs = []
                    self.watcher.advance(Phase.REMOVE, removal.users)
                if removal.limit_reached:
                    break
        if proofs:
            removal += await run.remove_users(proofs, terms)
            self.watcher.advance(Phase.REMOVE, removal.users)
        return removal, spared

    async def _finish_removals(self, run: Run, done: Changes, spec: Spec) -> tuple[Changes, int]:
        """Go on with users who leave in batches, also those whom a run or an event that was killed had begun.

        Returns the changes, and how many of these users Clerk says are alive: nothing more of theirs is touched.
        """
        # They were counted against the limits when they were begun.
        terms, removal, alive = RemovalTerms.of(spec.deletion, None), Removal(), 0
        async with aclosing(run.unfinished()) as batches:
            async for batch in batches:
                for user_id in batch:
                    part, lives = await self._finish_removal(run, user_id, terms)
                    removal, alive = removal + part, alive + lives
                    self.watcher.advance(Phase.REMOVE, done.users_removed + removal.users)
        done = replace(
            done,
            users_removed=done.users_removed + removal.users,
            rows_removed=done.rows_removed + removal.rows,
            users_left=done.users_left + removal.users_left,
        )
        return done, alive

    async def _finish_removal(self, run: Run, user_id: UserId, terms: RemovalTerms) -> tuple[Removal, bool]:
        """Remove a user batch by batch, each few seconds on a proof of their own; says whether he was found alive."""
        total = Removal()
        while True:
            proofs, alive, _ = await self._prove([user_id])
            if not proofs:
                return total + Removal(users_left=1), alive > 0
            part = await run.go_on(proofs[0], terms)
            total += replace(part, users_unfinished=0)
            if not part.users_unfinished:
                return total, False

    def _is_ready(self, proofs: list[Proof]) -> bool:
        if not proofs:
            return False
        age = self.clock.elapsed() - proofs[0].asked_at
        return len(proofs) >= REMOVAL_BATCH or age > REMOVAL_BATCH_AGE.total_seconds()

    async def _prove(self, user_ids: Sequence[UserId]) -> tuple[list[Proof], int, int]:
        """Return the proofs, how many live, and how many Clerk answered oddly about.

        The filter is asked here too: the candidates may have been observed after the second look.
        """
        alive = await self.directory.find(user_ids)
        suspects = [user_id for user_id in user_ids if user_id not in alive]
        questions = (prove_absence(self.directory, self.clock, user_id) for user_id in suspects)
        # Waits for all of them, so that no look-up outlives the run.
        answers = await asyncio.gather(*questions, return_exceptions=True)
        for answer in answers:
            # One odd answer leaves its user, and must not keep the run from all others.
            if isinstance(answer, BaseException) and not isinstance(answer, ClerkAnswerOdd):
                raise answer
        proofs = [answer for answer in answers if isinstance(answer, Proof)]
        unclear = sum(isinstance(answer, ClerkAnswerOdd) for answer in answers)
        return proofs, len(alive) + answers.count(None), unclear


async def _in_groups(
    batches: AsyncGenerator[Sequence[UserId], None], size: int
) -> AsyncGenerator[Sequence[UserId], None]:
    async with aclosing(batches):
        async for batch in batches:
            for start in range(0, len(batch), size):
                yield batch[start : start + size]


def finishes(planned: Plan, policy: Policy) -> bool:
    """Whether the run goes on with removals that were begun: not on a listing that cannot be right."""
    distrusted = {HoldReason.EMPTY_SOURCE, HoldReason.PARTIAL_SOURCE}
    trusts = planned.held_back is None or planned.held_back.reason not in distrusted
    return trusts and Action.CLEANUP in policy.actions and policy.deletion.policy is not DeletionPolicy.RETAIN


def deletes(planned: Plan) -> bool:
    """Whether the plan takes rows away."""
    return any(not isinstance(change, CreateProfiles | UpdateProfiles) for change in planned.changes)


def intended(planned: Plan) -> Changes:
    """What the plan would come to, if every suspect is proved and nothing stands in the way."""
    changes = Changes()
    for change in planned.changes:
        match change:
            case CreateProfiles(users):
                changes = replace(changes, profiles_created=users)
            case UpdateProfiles(users):
                changes = replace(changes, profiles_updated=users)
            case RemoveUsers(users):
                changes = replace(changes, users_removed=changes.users_removed + users)
            case ReduceDuplicates(_, rows):
                changes = replace(changes, duplicates_removed=rows)
            case _:
                assert_never(change)
    return changes
