"""What makes agents durable and streamable: the wrapped agent, task hubs, models, host adapters."""
