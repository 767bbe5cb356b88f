"""Real sensor data for `recipes/sensors.yaml`: fetching it, and what other methods make of it."""
