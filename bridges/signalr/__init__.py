"""Push by Azure SignalR Service: the stream, told to browsers that are connected there. docs/signalr.md."""
