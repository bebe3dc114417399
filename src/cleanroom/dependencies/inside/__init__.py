"""Programs that the fetch step runs in its environments: nothing here imports the engine."""
