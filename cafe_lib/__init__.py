"""CAFE: what the server, the agent and the developer's tools share."""
