"""The Dagster instance of a home: its file, its storage, its daemon, and what it forgets."""
