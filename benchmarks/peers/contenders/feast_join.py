"""Feast: the features of each reference as of its instant, by get_historical_features over one Parquet file."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32
from feast.value_type import ValueType


def prepare(
    store: str, repository: str, features: str, stream: str, names: list[str], instants: str, calls: int, step_ms: int,
    answer: str | None,
):  # fmt: skip
    """The work that asks for all features at all instants (.npy, milliseconds), in `calls` calls.

    `store` is the type of offline store, `repository` a folder for the registry. A value older than `step_ms` is none.
    """
    with suppress(OSError):  # the first to go where memory ends, before others on this machine
        Path("/proc/self/oom_score_adj").write_text("1000")
    registry, online = f"{repository}/registry.db", {"type": "sqlite", "path": f"{repository}/online.db"}
    opened = FeatureStore(
        config=RepoConfig(
            project="peers",
            provider="local",
            registry=registry,
            offline_store={"type": store},
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="stream", join_keys=["stream"], value_type=ValueType.STRING)
    view = FeatureView(
        name="tape",
        entities=[entity],
        ttl=timedelta(milliseconds=step_ms),
        schema=[Field(name=name, dtype=Float32) for name in names],
        source=FileSource(path=features, timestamp_field="known_at"),
        online=False,
    )
    opened.apply([entity, view])
    asked = [f"tape:{name}" for name in names]
    moments = pd.to_datetime(np.load(instants), unit="ms", utc=True)
    references = pd.DataFrame({"stream": stream, "event_timestamp": moments})
    parts = [references.iloc[part] for part in np.array_split(np.arange(len(references)), calls)]

    def work() -> dict[str, object]:
        frames = [opened.get_historical_features(entity_df=part, features=asked).to_df() for part in parts]
        found = pd.concat(frames).sort_values("event_timestamp")
        if answer:
            np.save(answer, found[names].to_numpy(np.float32))
        return {"rows": len(found)}

    return work
