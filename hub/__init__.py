"""The Hub: API, policy, routing, enrollment, metering and the portal. It never runs a model."""
