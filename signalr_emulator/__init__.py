"""A stand-in for Azure SignalR Service on this machine, in its serverless mode: a tool for development.

It speaks what a serverless application and its clients use of the service: the REST interface, the clients'
negotiation, and the hub protocol as JSON over WebSockets. It knows nothing of the rest of the project.
"""
