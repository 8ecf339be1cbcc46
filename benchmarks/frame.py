"""Gathering frames of many blocks: one for one instant, and many at once against a plain copy of their bytes.

The blocks are those of the standard frame of ETH/USDT 1m with a model that reads another: candles of 1s, 1m, 1h and 1d
and of BTC/USDT 1s, the order book, pivots, what the CNN said and knew. Their tapes are made up (see made_up.py): what
is in them does not change how long it takes to gather it.
"""

import numpy as np

from benchmarks.figure import Figure
from benchmarks.made_up import STANDARD, scene
from benchmarks.sampling import Sample, Samples, take_turns, timed
from hindsight.inference.blocks import Blocks, Frame
from hindsight.inference.frames import Frames, Rows

LIMIT_SECONDS, COPY_SPEED = 2e-3, 0.5
REFERENCES, INSTANTS = 1024, 200
MODEL = "dqn"  # reads another one


def measure(repeats: int) -> Figure:
    """One frame at each of 200 instants, and those of 1,024 references at once, both at random in two weeks."""
    market = scene(STANDARD)
    blocks = market.blocks(MODEL)
    chance = np.random.default_rng(0)
    rows = chance.integers(market.first, market.now, REFERENCES)
    norm = np.ones((REFERENCES, 4), np.float32)
    frame = blocks.gather(rows, norm)
    ready = [np.empty_like(block) for block in frame.seen]
    instants = chance.integers(market.first, market.now, INSTANTS)
    samples = take_turns(
        5 * repeats,
        {
            "Blocks.gather, one frame": lambda: _one_by_one(blocks, instants),
            "Blocks.gather, 1,024 frames": lambda: timed(lambda: blocks.gather(rows, norm)),
            "a plain copy of the same bytes": lambda: timed(lambda: frame.map(np.copy)),
            "a copy into memory that is there": lambda: timed(lambda: _copy_onto(frame, ready)),
        },
        warm_ups=("Blocks.gather, one frame", "Blocks.gather, 1,024 frames", "a plain copy of the same bytes"),
    )
    one, many, copy, onto = samples.values()
    speed, size = copy.median / many.median, sum(block.nbytes for block in frame.seen)
    return Figure(
        name=f"frames of {len(frame.seen)} blocks: one, and {REFERENCES:,} at once",
        goal=f"under {1000 * LIMIT_SECONDS:g} ms; at least {COPY_SPEED:g} of a plain copy's speed",
        measured=f"{1000 * one.median:.2f} ms; {1000 * many.median:.0f} ms ({size / 1e9 / many.median:.1f} GB/s)",
        ratio=f"{one.median / LIMIT_SECONDS:.2f} of the limit; {speed:.2f} of a copy",
        is_reached=one.median < LIMIT_SECONDS and speed >= COPY_SPEED,
        samples=samples,
        notes=(
            f"a frame is {size / REFERENCES / 1000:.0f} kB: "
            + ", ".join(f"{list(block.shape[1:])}" for block in frame.seen),
            f"speed over a plain copy: median {speed:.2f}, minimum {copy.minimum / many.minimum:.2f}, processor "
            f"{copy.processor / many.processor:.2f}; over a copy into memory that is there already: "
            f"{onto.median / many.median:.2f}",
            *_by_block(blocks, rows, repeats),
        ),
    )


def _one_by_one(blocks: Blocks, instants: Rows) -> Sample:
    """What one of them takes."""
    norm = np.ones((1, 4), np.float32)
    whole = timed(lambda: [blocks.gather(instants[at : at + 1], norm) for at in range(len(instants))])
    return Sample(whole.wall / len(instants), whole.processor / len(instants))


def _copy_onto(frame: Frame[Frames], ready: list[Frames]) -> None:
    for block, onto in zip(frame.seen, ready, strict=True):
        np.copyto(onto, block)


def _by_block(blocks: Blocks, rows: Rows, repeats: int) -> list[str]:
    """Where the time of many goes."""
    made_ms, shape = (rows + 1) * blocks.own.step_ms, blocks.shape
    book, pivots, (peer,) = blocks.book, blocks.pivots, blocks.peers
    assert book
    assert pivots
    parts = {
        str(block): lambda tape=tape, block=block: tape.gather(made_ms // tape.step_ms - 1, block.length, made_ms)
        for block, tape in zip(shape.candles, blocks.tapes, strict=True)
    }
    parts |= {
        "book": lambda: book.gather(made_ms, shape.book),
        "pivots": lambda: pivots.gather(rows, shape.pivots),
        "another model": lambda: (peer.outputs_before(rows), peer.hidden_at(rows)),
    }
    taken = {name: Samples([timed(part) for _ in range(5 * repeats)]).median for name, part in parts.items()}
    return ["by block:", *(f"  {1000 * seconds:6.1f} ms  {name}" for name, seconds in taken.items())]
