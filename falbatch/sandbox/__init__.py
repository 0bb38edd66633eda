"""An emulator of fal for loopback, written from the protocol (fal-protocol.md). Imports nothing of the client.

Read in this order: `states` and `requests` (what the queue holds), `engine` (what time does to it), `verdict`
and `outputs` (how a request ends and what comes out), `faults` (what goes wrong on demand), `world` (all of it
together, kept in `store`), then one module of routes per host prefix, and `server`, the only one that knows HTTP.
"""
