"""How histories are drawn: weighted towards what leads into the corners, and small where it shrinks to."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.simulation import histories as h
from tests.simulation.clerk import Lie
from tests.simulation.crashes import Fate

DELAYS = (0.0, 0.02, 0.3, 3.0, 31.0, 95.0, 400.0, 3700.0, 5 * 3600.0, 13 * 3600.0, 23 * 3600.0, 26 * 3600.0)
LONG_DELAYS = (80 * 3600.0, 8 * 86400.0)

numbers = st.integers(0, 7)
processes = st.sampled_from(h.PROCESSES)
delays = st.one_of(*[st.sampled_from(DELAYS)] * 9, st.sampled_from(LONG_DELAYS))
arrivals = st.one_of(
    st.just((0.0,)),
    st.just(()),
    st.lists(st.sampled_from((0.0, 0.05, 2.0, 40.0, 600.0, 20000.0, 100000.0)), min_size=1, max_size=3).map(tuple),
)
sign_ups = st.builds(h.SignUp, arrives=arrivals, rows=st.integers(0, 3), profile=st.booleans())
departures = st.builds(h.Leave, who=numbers, arrives=arrivals)
requests = st.builds(
    h.Request,
    who=numbers,
    again=st.sampled_from(((), (), (0.0,), (0.01, 0.3), (40.0,), (5.0, 4000.0))),
    arrives=arrivals,
)
edits = st.builds(
    h.Edit,
    who=numbers,
    arrives=arrivals,
    second=st.one_of(st.none(), st.none(), arrivals),
    mapped=st.sampled_from((True, True, True, False)),
)
rumours = st.builds(
    h.Tell,
    who=numbers,
    type=st.sampled_from(("user.deleted", "user.created", "user.updated")),
    arrives=arrivals,
    back=st.sampled_from((0, 0, 1, 2)),
    bare=st.sampled_from((False, False, True)),
    doubtful=st.sampled_from((False, False, True)),
)
writes = st.builds(h.Write, who=st.integers(0, 3), table=st.integers(0, 3))
foreign = st.builds(
    h.WriteForeign, value=st.sampled_from((None, "", "system", "user_", "user_a-b", "7b1c")), table=st.integers(0, 3)
)
lies = st.one_of(
    st.just(h.Deceive()),
    st.builds(
        h.Deceive,
        lie=st.sampled_from(Lie),
        about=st.lists(numbers, min_size=1, max_size=4, unique=True).map(tuple),
    ),
    st.builds(
        h.Deceive,
        lie=st.sampled_from((Lie.HIDES_FROM_BOTH, Lie.HIDES_FROM_LISTING)),
        about=st.lists(numbers, min_size=1, max_size=4, unique=True).map(tuple),
    ),
)
sweeps = st.builds(h.Sweep, by=st.sampled_from(h.CONTROLLERS))
polls = st.builds(h.Poll, by=st.sampled_from(h.REPLICAS))
disturbances = st.one_of(
    st.builds(
        h.Disturb,
        process=processes,
        fate=st.sampled_from([fate for fate in Fate if fate is not Fate.STALL]),
        steps=st.integers(0, 80),
    ),
    st.builds(
        h.Disturb,
        process=processes,
        fate=st.sampled_from((Fate.KILL_BEFORE, Fate.KILL_AFTER, Fate.DROP_BEFORE, Fate.DROP_AFTER)),
        steps=st.integers(0, 25),
        commits=st.sampled_from((True,)),
    ),
    st.builds(
        h.Disturb,
        process=processes,
        fate=st.just(Fate.STALL),
        steps=st.integers(0, 80),
        stall=st.sampled_from((3.0, 40.0, 70.0, 310.0, 400.0, 4000.0)),
    ),
)
jumps = st.builds(h.Jump, seconds=st.sampled_from((-90000.0, -4000.0, -20.0, 20.0, 4000.0, 90000.0)))
skews = st.builds(h.Skew, process=processes, seconds=st.sampled_from((-4000.0, -200.0, 200.0, 4000.0)))
approvals = st.builds(h.Approve, back=st.integers(0, 3))
changes = st.builds(
    h.Configure,
    suspend=st.sampled_from((False, False, False, True)),
    dry_run=st.sampled_from((False, False, False, True)),
    policy=st.sampled_from(("Archive", "Archive", "Erase", "Retain")),
    actions=st.sampled_from(("FullSync", "FullSync", "FullSync", "Cleanup", "FixProgress", "FixDuplicates", "Analyze")),
    on_deleted=st.sampled_from(("Immediate", "Immediate", "Holdback", "Ignore")),
    on_created=st.sampled_from(("CreateProfile", "CreateProfile", "Ignore")),
)

single = st.one_of(
    sweeps, sweeps, sweeps, departures, departures, sign_ups, writes, rumours, lies, disturbances, disturbances,
    approvals, polls, foreign, jumps, skews, changes, edits, requests,
).flatmap(lambda event: st.builds(h.Step, after=delays, event=st.just(event)).map(lambda step: (step,)))  # fmt: skip


def _steps(*pairs: tuple[float, h.Event]) -> tuple[h.Step, ...]:
    return tuple(h.Step(after, event) for after, event in pairs)


disturbed_runs = st.builds(
    lambda disturbance, by, other: _steps(
        (0.0, replace(disturbance, process=by)), (0.0, h.Sweep(by)), (0.1, h.Sweep(other)), (100.0, h.Sweep(other))
    ),
    disturbances,
    st.sampled_from(h.CONTROLLERS),
    st.sampled_from(h.CONTROLLERS),
)
"""Something lies in wait, then two runs at once."""
zombies = st.builds(
    lambda steps, by, other: _steps(
        (0.0, h.Disturb(by, Fate.STALL, steps, stall=400.0)), (0.0, h.Sweep(by)), (100.0, h.Sweep(other)),
        (350.0, h.Poll("w1")),
    ),
    st.integers(0, 110),
    st.sampled_from(("a", "cli")),
    st.just("b"),
)  # fmt: skip
"""A run is stopped in the middle, another takes over, and the first one wakes up."""
partial_runs = st.builds(
    lambda leave, gap, hidden, by: _steps(
        (0.0, leave), (1.0, h.Sweep("a")), (gap, h.Deceive(Lie.HIDES_FROM_LISTING, hidden)), (0.1, h.Sweep(by)),
        (60.0, h.Deceive()),
    ),
    departures,
    st.sampled_from((100.0, 3700.0)),
    st.lists(numbers, min_size=1, max_size=3, unique=True).map(tuple),
    st.sampled_from(h.CONTROLLERS),
)  # fmt: skip
"""Somebody is due when a listing hides others, whom the filter still finds."""
disturbed_events = st.builds(
    lambda disturbance, steps, who, later: _steps(
        *[(0.0, replace(disturbance, process=name, steps=steps)) for name in h.REPLICAS],
        (0.0, h.Leave(who, (0.0, 0.0))),
        (later, h.Tell(who, "user.deleted", (0.0,))),
    ),
    disturbances,
    st.integers(0, 45),
    numbers,
    st.sampled_from((0.0, 0.1, 40.0, 400.0)),
)
"""Something lies in wait for whoever takes the message of a user who left."""
flickering = st.builds(
    lambda who, gap, leave: _steps(
        (0.0, h.Deceive(Lie.HIDES_FROM_BOTH, (who,))), (0.1, h.Sweep("a")), (100.0, h.Deceive()), (gap, h.Sweep("b")),
        (100.0, leave), (gap, h.Sweep("a")),
    ),
    numbers,
    st.sampled_from((2400.0, 2400.0, 4000.0, 5 * 3600.0, 11 * 3600.0, 13 * 3600.0)),
    st.builds(h.Leave, who=numbers, arrives=st.just(())),
)  # fmt: skip
"""A living user is missed once, seen again, and gone after that."""
disturbed_requests = st.builds(
    lambda disturbance, steps, lie, request, by, gaps: _steps(
        *[(0.0, replace(disturbance, process=name, steps=steps)) for name in h.REPLICAS],
        *([(0.0, h.Deceive(lie, (request.who,)))] if lie else []),
        (0.0, request), (gaps[0], h.Sweep(by)), *([(gaps[1], h.Deceive())] if lie else []), (gaps[2], h.Write(0, 0)),
    ),
    disturbances,
    st.integers(0, 45),
    st.sampled_from((None, None, Lie.KEEPS, Lie.KEEPS_SECRETLY, Lie.UNAVAILABLE, Lie.REFUSES, Lie.GHOSTS, Lie.SLOW)),
    requests,
    st.sampled_from(h.CONTROLLERS),
    st.tuples(*[st.sampled_from((0.0, 0.1, 0.5, 40.0, 400.0))] * 3),
)  # fmt: skip
"""Something lies in wait for whoever takes a user's own request, and Clerk may not do its part at once."""
slips = st.builds(
    lambda who, gaps, change, rumour, by: _steps(
        (0.0, h.Configure(on_deleted="Holdback")), (0.1, h.Leave(who, (0.0, 0.3))), (gaps[0], h.Sweep("a")),
        (gaps[1], change), (0.1, replace(rumour, who=who)), (gaps[2], h.Sweep(by)), (1.0, h.Poll("w1")),
    ),
    numbers,
    st.tuples(*[st.sampled_from((1.0, 100.0, 3700.0, 2.5 * 3600))] * 3),
    changes,
    rumours,
    st.sampled_from(h.CONTROLLERS),
)  # fmt: skip
"""Whoever leaves is held back, while runs go on, the resource is changed, and other messages about him come."""
edited = st.builds(
    lambda first, second, disturbance, steps, by, gaps: _steps(
        (0.0, h.Sweep("b")), (100.0, replace(disturbance, process="w1", steps=steps)),
        (0.0, replace(disturbance, process=by, steps=steps)),
        (0.0, h.Sweep(by)), (gaps[0], first), (gaps[1], replace(second, who=first.who)),
        (gaps[2], h.Tell(first.who, "user.updated", (0.0, gaps[0]), back=1)), (gaps[1], h.Sweep("b")),
    ),
    edits,
    edits,
    disturbances,
    st.integers(0, 45),
    st.sampled_from(h.CONTROLLERS),
    st.tuples(*[st.sampled_from((0.0, 0.02, 0.1, 0.3, 40.0))] * 3),
)  # fmt: skip
"""A user is edited twice while a run goes on, something lies in wait for whoever writes that down, and the older
message comes again."""
exoduses = st.integers(2, 6).flatmap(
    lambda count: st.tuples(
        *[st.builds(h.Leave, who=numbers, arrives=st.sampled_from(((), (0.0,)))).map(lambda event: h.Step(0.05, event))]
        * count
    )
)
"""Many leave at once."""
approved_runs = st.builds(
    lambda back, gap, by: _steps((gap, h.Sweep("a")), (gap, h.Approve(back)), (30.0, h.Sweep(by))),
    st.integers(0, 2),
    st.sampled_from((30.0, 5 * 3600.0, 23 * 3600.0)),
    st.sampled_from(h.CONTROLLERS),
)
"""A run that may hold a set back, a person who approves it or an older one, and a run that acts on it."""
growing = st.builds(
    lambda exodus, gap, newcomer, back, by: (
        *exodus,
        *_steps(
            (1.0, h.Sweep("a")), (gap, h.Sweep("b")), (0.1, newcomer), (60.0, h.Sweep("a")), (gap, h.Sweep("b")),
            (30.0, h.Approve(back)), (1.0, h.Sweep(by)),
        ),
    ),
    exoduses,
    st.sampled_from((100.0, 3700.0, 3700.0, 12.5 * 3600)),
    departures,
    st.integers(0, 1),
    st.sampled_from(h.CONTROLLERS),
)  # fmt: skip
"""A set is held back, grows, and the older or the newer one is approved."""
races = st.builds(
    lambda who, gaps, writes: _steps(
        (0.0, h.Leave(who, (0.0, 0.0))),
        *[(gap, h.Tell(who, "user.created", (0.0,))) for gap in gaps],
        (writes, h.Write(0, 0)),
    ),
    numbers,
    st.lists(st.sampled_from((0.02, 0.01, 0.03)), min_size=3, max_size=8),
    st.sampled_from((0.0, 0.1, 50.0)),
)
"""A user leaves while old messages about him arrive, and his token still writes."""

beginnings = st.builds(
    h.Beginning,
    living=st.integers(0, 7),
    gone=st.sampled_from((0, 0, 1, 2, 5)),
    missing=st.integers(0, 2),
    duplicates=st.integers(0, 2),
    unique=st.booleans(),
    indexed=st.booleans(),
    grace_hours=st.sampled_from((24, 1, 1, 0)),
    interval_hours=st.sampled_from((1, 8)),
    limit_users=st.sampled_from((5, 2, 1)),
    policy=st.sampled_from(("Archive", "Archive", "Archive", "Erase", "Retain")),
    batches=st.booleans(),
    maps=st.booleans(),
    on_deleted=st.sampled_from(("Immediate", "Immediate", "Immediate", "Holdback", "Ignore")),
    holdback_hours=st.sampled_from((24, 2, 0.02)),
)


@st.composite
def histories(draw: st.DrawFn) -> h.History:
    """Draw a history of up to some thirty steps."""
    parts = draw(
        st.lists(
            st.one_of(
                single,
                single,
                single,
                single,
                disturbed_runs,
                disturbed_runs,
                disturbed_events,
                zombies,
                partial_runs,
                flickering,
                exoduses,
                approved_runs,
                growing,
                races,
                edited,
                disturbed_requests,
                slips,
            ),
            min_size=3,
            max_size=9,
        )
    )
    steps = tuple(step for part in parts for step in part)
    return h.History(draw(st.integers(0, 2**16)), draw(beginnings), steps)
