"""The library: what the command line calls, and what a program may call (design §8).

Nothing is imported here: `status` needs the state file alone, and a run's HTTP libraries cost more time than it does.
"""
