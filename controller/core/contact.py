"""First contact, and every later one: does this key belong to this database?

A wrong key makes every living user look gone, so nothing is created or deleted before this has been
answered. Used by `sweeping` and by the webhook service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.errors import UnknownPopulation, WrongInstance

if TYPE_CHECKING:
    from controller.core.ports import Directory, Store
    from controller.core.users import Instance

SAMPLE = 200
"""How many ids of the database are looked for in the instance at first contact."""


async def establish(directory: Directory, store: Store, *, named: str | None = None) -> Instance:
    """Return the instance that both sides agree on, pinning it at first contact.

    `named` is the `instanceId` that a person wrote; it settles first contact, but not a pin.

    Raises:
        WrongInstance: the key is of another instance than the one named or pinned.
        UnknownPopulation: fewer than half of the sampled ids exist in the instance.
    """
    instance = await directory.instance()
    if named is not None and named != instance.id:
        message = (
            f"The Clerk key belongs to {instance.id} ({instance.environment.value}), but spec.clerk.instanceId "
            f"says {named}; nothing is done. Use the key of {named}, or correct instanceId."
        )
        raise WrongInstance(message)
    pinned = await store.pinned_instance()
    if pinned is None:
        if named is None:
            await _check_population(directory, store, instance)
        await store.pin_instance(instance)
    else:
        require_pinned(instance, pinned)
    return instance


def require_pinned(instance: Instance, pinned: str) -> None:
    """Check that the key's instance is the one that the database belongs to.

    Raises:
        WrongInstance: it is another.
    """
    if instance.id != pinned:
        message = (
            f"The Clerk key belongs to {instance.id} ({instance.environment.value}), but this database has been "
            f"kept in step with {pinned}; nothing is done. Use the key of {pinned}."
        )
        raise WrongInstance(message)


async def _check_population(directory: Directory, store: Store, instance: Instance) -> None:
    sample = await store.sample_user_ids(SAMPLE)
    if not sample:
        return
    known = len(await directory.find(sample))
    if 2 * known < len(sample):
        message = (
            f"Of {len(sample)} sampled users of the database, {instance.id} ({instance.environment.value}) knows "
            f"{known}: probably the key of another instance, or another database; nothing is done. If it is right, "
            f"write spec.clerk.instanceId: {instance.id}."
        )
        raise UnknownPopulation(message)
