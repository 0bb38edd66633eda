"""An emulator of fal for loopback, written from the protocol. Imports nothing of the client."""
